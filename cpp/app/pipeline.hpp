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

/// A frame on its way, with what it takes to look at it and how long each stage took.
///
/// `end_to_end` is from the frame in memory to its detections, waiting between stages included.
struct Slot {
    explicit Slot(Job&& from) : job(std::move(from)) {}

    Job job;
    Frame frame;
    std::vector<Detection> detections;
    Milliseconds took{};
    std::chrono::steady_clock::time_point decoded;
    std::promise<bool> inferred;
};

/// Decodes, prepares and infers in threads of their own; the caller's thread selects.
///
/// A fixed number of slots goes round, so no queue can grow past it. The caller gets the slots in
/// the order of the frames, whichever engine stream was done first.
class Pipeline {
public:
    /// Args: streams, the number of frames that are inferred at once; frames, the most to decode.
    Pipeline(const Detector& detector, Source& source, int streams, long frames);
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
    std::vector<std::unique_ptr<Slot>> slots_;
    Queue<Slot*> free_, decoded_, prepared_;
    /// All slots between decoding and the caller, in the order of the frames.
    Queue<std::pair<Slot*, std::future<bool>>> order_;
    Slot* lent_ = nullptr;
    std::vector<std::thread> threads_;
};

}  // namespace raudo::app
