#include "pipeline.hpp"

#include <utility>

namespace raudo::app {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Runs one stage of one slot and notes how long it took.
template <typename Work>
auto timed(Slot& slot, Stage stage, Work work) {
    const auto start = Clock::now();
    struct Note {
        Slot& slot;
        Stage stage;
        Clock::time_point start;
        ~Note() { slot.took[stage] = milliseconds_since(start); }
    } note{slot, stage, start};
    return work();
}

/// Tells the caller's thread that a slot is done. The promise is moved out first: the caller may
/// use the slot again before this returns.
void finish(Slot& slot, bool found) {
    std::promise<bool> inferred = std::move(slot.inferred);
    inferred.set_value(found);
}

/// Hands the exception that is being handled to the caller's thread.
void fail(Slot& slot) {
    std::promise<bool> inferred = std::move(slot.inferred);
    inferred.set_exception(std::current_exception());
}

Image image_of(const cv::Mat& mat) {
    return {mat.data, mat.rows, mat.cols, mat.step[0]};
}

}  // namespace

Pipeline::Pipeline(const Detector& detector, Source& source, int streams, long frames)
    : source_(source) {
    // One frame for each stream, one being decoded, one prepared and one selected.
    for (int i = 0; i < streams + 3; ++i) {
        slots_.push_back(std::make_unique<Slot>(detector.make_job()));
        free_.push(slots_.back().get());
    }
    threads_.emplace_back(&Pipeline::decode_all, this, frames);
    threads_.emplace_back(&Pipeline::prepare_all, this);
    for (int i = 0; i < streams; ++i) {
        threads_.emplace_back(&Pipeline::infer_all, this);
    }
}

Pipeline::~Pipeline() {
    for (auto* queue : {&free_, &decoded_, &prepared_}) {
        queue->cancel();
    }
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

Slot* Pipeline::next() {
    if (lent_ != nullptr) {
        free_.push(std::exchange(lent_, nullptr));
    }
    auto first = order_.pop();
    if (!first || !first->second.get()) {
        return nullptr;
    }
    Slot& slot = *(lent_ = first->first);
    slot.detections = timed(slot, select, [&] { return slot.job.select(); });
    slot.took[end_to_end] = milliseconds_since(slot.decoded);
    return lent_;
}

void Pipeline::decode_all(long frames) {
    for (long done = 0; done < frames; ++done) {
        const auto taken = free_.pop();
        if (!taken) {
            break;
        }
        Slot& slot = **taken;
        slot.inferred = {};
        order_.push({&slot, slot.inferred.get_future()});
        try {
            if (!timed(slot, decode, [&] { return source_.read(slot.frame); })) {
                finish(slot, false);
                break;
            }
        } catch (...) {
            fail(slot);
            break;
        }
        slot.decoded = Clock::now();
        decoded_.push(&slot);
    }
    order_.close();
    decoded_.close();
}

void Pipeline::prepare_all() {
    while (const auto taken = decoded_.pop()) {
        Slot& slot = **taken;
        try {
            timed(slot, prepare, [&] { slot.job.prepare(image_of(slot.frame.image)); });
            prepared_.push(&slot);
        } catch (...) {
            fail(slot);
        }
    }
    prepared_.close();
}

void Pipeline::infer_all() {
    while (const auto taken = prepared_.pop()) {
        Slot& slot = **taken;
        try {
            timed(slot, infer, [&] { slot.job.infer(); });
            finish(slot, true);
        } catch (...) {
            fail(slot);
        }
    }
}

}  // namespace raudo::app
