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
    std::promise<bool> done = std::move(slot.done);
    done.set_value(found);
}

/// Hands the exception that is being handled to the caller's thread.
void fail(Slot& slot) {
    std::promise<bool> done = std::move(slot.done);
    done.set_exception(std::current_exception());
}

Image image_of(const cv::Mat& mat) {
    return {mat.data, mat.rows, mat.cols, mat.step[0]};
}

}  // namespace

Pipeline::Pipeline(const Detector& detector, Source& source, const Work& work)
    : source_(source), pixels_(work.pixels) {
    // One frame for each stream, one being decoded, one prepared and one with the caller.
    for (int i = 0; i < work.streams + 3; ++i) {
        free_.push(slots_.emplace_back(std::make_unique<Slot>()).get());
    }
    for (int i = 0; i < (pixels_ ? work.streams + 3 : 2); ++i) {
        images_.push({});
    }
    for (int i = 0; i < work.streams + 1; ++i) {
        idle_.push(jobs_.emplace_back(std::make_unique<Job>(detector.make_job())).get());
    }
    threads_.emplace_back(&Pipeline::decode_all, this, work.frames);
    threads_.emplace_back(&Pipeline::prepare_all, this);
    for (int i = 0; i < work.streams; ++i) {
        threads_.emplace_back(&Pipeline::infer_all, this);
    }
}

Pipeline::~Pipeline() {
    for (auto* queue : {&free_, &decoded_, &prepared_}) {
        queue->cancel();
    }
    images_.cancel();
    idle_.cancel();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

Slot* Pipeline::next() {
    if (lent_ != nullptr) {
        if (pixels_) {
            images_.push(std::move(lent_->frame.image));
        }
        free_.push(std::exchange(lent_, nullptr));
    }
    auto first = order_.pop();
    if (!first || !first->second.get()) {
        return nullptr;
    }
    return lent_ = first->first;
}

void Pipeline::decode_all(long frames) {
    for (long done = 0; done < frames; ++done) {
        const auto taken = free_.pop();
        auto image = images_.pop();
        if (!taken || !image) {
            break;
        }
        Slot& slot = **taken;
        slot.done = {};
        slot.frame.image = *std::move(image);
        order_.push({&slot, slot.done.get_future()});
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
        const auto job = idle_.pop();
        if (!job) {
            break;
        }
        Slot& slot = **taken;
        slot.job = *job;
        try {
            timed(slot, prepare, [&] { slot.job->prepare(image_of(slot.frame.image)); });
        } catch (...) {
            fail(slot);
            continue;
        }
        if (!pixels_) {
            images_.push(std::move(slot.frame.image));
        }
        prepared_.push(&slot);
    }
    prepared_.close();
}

void Pipeline::infer_all() {
    while (const auto taken = prepared_.pop()) {
        Slot& slot = **taken;
        try {
            timed(slot, infer, [&] { slot.job->infer(); });
            slot.detections = timed(slot, select, [&] { return slot.job->select(); });
            slot.took[end_to_end] = milliseconds_since(slot.decoded);
            idle_.push(slot.job);
            finish(slot, true);
        } catch (...) {
            fail(slot);
        }
    }
}

}  // namespace raudo::app
