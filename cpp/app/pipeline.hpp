#pragma once

#include <array>
#include <chrono>
#include <future>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "queue.hpp"
#include "raudo/detector.hpp"
#include "source.hpp"

namespace raudo::app {

enum Stage : std::size_t { decode, prepare, infer, select, end_to_end, stage_count };
constexpr std::array<std::string_view, stage_count> stage_names = {"decode", "prepare", "infer",
                                                                   "select", "end_to_end"};
using Milliseconds = std::array<double, stage_count>;

/// A frame on its way, and how long each stage took.
///
/// `end_to_end` is from the frame in memory to its detections, waiting between stages included.
struct Slot {
    Frame frame;
    Job* job = nullptr;
    std::vector<Detection> detections;
    Milliseconds took{};
    std::chrono::steady_clock::time_point decoded;
    std::promise<bool> done;
};

/// What a pipeline works on.
struct Work {
    /// Frames that are inferred at once.
    int streams = 1;
    /// The most frames to decode.
    long frames = 0;
    /// Whether the caller looks at the pixels; where not, they are gone once they are prepared.
    bool pixels = false;
};

/// Decodes, prepares and infers in threads of their own.
///
/// Fixed numbers of slots, images and jobs go round, so no queue can grow past them. The caller gets
/// the slots in the order of the frames, whichever engine stream was done first.
class Pipeline {
public:
    Pipeline(const Detector& detector, Source& source, const Work& work);
    ~Pipeline();
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;

    /// Waits for the next frame and its detections; null at the end. Rethrows what a stage threw.
    /// The slot is the caller's until the next call.
    Slot* next();

private:
    void decode_all(long frames);
    void prepare_all();
    void infer_all();

    Source& source_;
    const bool pixels_;
    std::vector<std::unique_ptr<Slot>> slots_;
    std::vector<std::unique_ptr<Job>> jobs_;
    Queue<Slot*> free_, decoded_, prepared_;
    Queue<Job*> idle_;
    /// Memory of images that nobody needs any more.
    Queue<cv::Mat> images_;
    /// All slots between decoding and the caller, in the order of the frames.
    Queue<std::pair<Slot*, std::future<bool>>> order_;
    Slot* lent_ = nullptr;
    std::vector<std::thread> threads_;
};

}  // namespace raudo::app
