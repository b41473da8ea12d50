/// yolo_tensorrt_detector: detects in a video, a camera or a stream.
///
/// Exit codes, those of `raudo`: 0 done, 2 wrong usage or bad input, 130 interrupted.

#include <CLI/CLI.hpp>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "draw.hpp"
#include "pipeline.hpp"
#include "raudo/detector.hpp"
#include "summary.hpp"
#include "writers.hpp"

namespace raudo::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int exit_usage = 2;
constexpr int exit_interrupted = 130;
constexpr int max_streams = 64;

const Clock::time_point program_start = Clock::now();
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

/// Where programs keep what they can make again (XDG Base Directory Specification).
std::string cache_folder() {
    for (const auto& [variable, below] : {std::pair{"XDG_CACHE_HOME", "raudo"},
                                          std::pair{"HOME", ".cache/raudo"}}) {
        const char* folder = std::getenv(variable);
        if (folder != nullptr && *folder != '\0') {
            return (fs::path(folder) / below).string();
        }
    }
    return {};
}

struct Arguments {
    std::string engine, source, output, jsonl;
    Options options;
    double iou = -1;
    std::string mode;
    long max_frames = std::numeric_limits<long>::max();
    bool benchmark = false;
    bool json = false;
};

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

void declare(CLI::App& app, Arguments& to) {
    app.add_option("engine", to.engine, "Engine file, its manifest <file>.json beside it")
        ->required();
    app.add_option("source", to.source, "Video, camera number, or address of a stream (rtsp://...)")
        ->required();
    app.add_option("--output", to.output, "MP4 file to draw the boxes into");
    app.add_option("--jsonl", to.jsonl, "File with one line a frame");
    app.add_option("--conf", to.options.confidence, "Lowest score")->check(CLI::Range(0.0, 1.0));
    app.add_option("--iou", to.iou, "NMS threshold; default: the family's")
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--classes", to.options.classes, "Names or numbers, with commas")
        ->delimiter(',');
    app.add_option("--device", to.options.device, "Where to run, in the runtime's own words");
    app.add_option("--mode", to.mode,
                   "latency: each frame as it comes; throughput: several at once, the default for "
                   "videos")
        ->check(CLI::IsMember({"latency", "throughput"}));
    app.add_option("--max-frames", to.max_frames, "Stop after so many")
        ->check(CLI::Range(1L, std::numeric_limits<long>::max()));
    app.add_option("--cache", to.options.cache,
                   "Folder where a runtime keeps what it compiled, to start faster next time; '' "
                   "keeps nothing")
        ->capture_default_str();
    app.add_flag("--benchmark", to.benchmark, "Show how long each stage took");
    app.add_flag("--json", to.json, "Print JSON for machines");
    std::string built;
    for (const std::string& name : backends()) {
        built += " " + name;
    }
    app.footer("Built with:" + built);
}

/// Refuses to overwrite an input, or one output with the other.
void check_apart(const Arguments& given) {
    const auto same = [](const std::string& a, const std::string& b) {
        std::error_code ignored;
        return !a.empty() && !b.empty() &&
               (fs::weakly_canonical(a, ignored) == fs::weakly_canonical(b, ignored) ||
                fs::equivalent(a, b, ignored));
    };
    const auto hint = "give --output and --jsonl names of their own";
    if (same(given.output, given.jsonl)) {
        throw Error("--output and --jsonl are the same file", hint);
    }
    for (const std::string& output : {given.output, given.jsonl}) {
        for (const std::string& input : {given.engine, given.engine + ".json", given.source}) {
            if (same(output, input)) {
                throw Error(output + " would overwrite what is read", hint);
            }
        }
    }
    if (!given.output.empty() && fs::path(given.output).extension() != ".mp4") {
        throw Error("cannot write " + given.output + ": what is made is an .mp4", "name it so");
    }
}

/// Frames that are inferred at once: one, or one for each core.
int streams_of(const std::string& mode, const Source& source) {
    if (mode == "latency" || (mode.empty() && source.live())) {
        return 1;
    }
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, max_streams);
}

/// Where the detections of each frame go.
class Outputs {
public:
    Outputs(const Arguments& given, double fps, std::vector<std::string> classes)
        : source_(given.source), classes_(std::move(classes)) {
        if (!given.jsonl.empty()) {
            lines_.emplace(given.jsonl);
        }
        if (!given.output.empty()) {
            video_.emplace(given.output, fps);
        }
    }

    void write(Frame& frame, const std::vector<Detection>& detections) {
        if (lines_) {
            lines_->write(describe(source_, frame, detections, classes_));
        }
        if (video_) {
            draw(frame.image, detections, classes_);
            video_->write(frame, frame.image);
        }
    }

    void finish() {
        if (video_) {
            video_->finish();
        }
    }

private:
    std::string source_;
    std::vector<std::string> classes_;
    std::optional<JsonLines> lines_;
    std::optional<VideoFile> video_;
};

/// Detects in frame after frame until the end, the most that is asked for, or Ctrl-C.
void run(Pipeline& pipeline, Outputs& outputs, bool benchmark, Summary& summary) {
    while (Slot* slot = interrupted ? nullptr : pipeline.next()) {
        if (summary.frames++ == 0) {
            summary.first_seconds = seconds_since(program_start);
        }
        summary.detections += static_cast<long>(slot->detections.size());
        if (benchmark) {
            summary.took.push_back(slot->took);
        }
        outputs.write(slot->frame, slot->detections);
    }
}

Summary detect(Arguments given) {
    check_apart(given);
    Source source(given.source, interrupted);
    given.options.streams = streams_of(given.mode, source);
    const Detector detector(given.engine, given.options);
    Outputs outputs(given, source.fps(), detector.classes());
    Summary summary;
    summary.source = given.source;
    const auto start = Clock::now();
    try {
        Pipeline pipeline(detector, source,
                          {given.options.streams, given.max_frames, !given.output.empty()});
        run(pipeline, outputs, given.benchmark, summary);
    } catch (const Error&) {
        outputs.finish();  // what was found so far is kept
        throw;
    }
    outputs.finish();
    summary.seconds = seconds_since(start);
    summary.skipped = source.skipped();
    summary.interrupted = interrupted;
    for (const std::string& output : {given.output, given.jsonl}) {
        if (!output.empty() && fs::exists(output)) {
            summary.outputs.push_back(output);
        }
    }
    return summary;
}

int fail(const std::string& message, const std::string& hint) {
    std::cerr << "error: " << message << "\nhint: " << hint << '\n';
    return exit_usage;
}

int main_checked(int count, char** words) {
    CLI::App app("Detects objects in a video, a camera or a stream.", "yolo_tensorrt_detector");
    Arguments given;
    given.options.cache = cache_folder();
    declare(app, given);
    try {
        app.parse(count, words);
    } catch (const CLI::ParseError& error) {
        return error.get_exit_code() == 0 ? app.exit(error)
                                          : fail(error.what(), "see yolo_tensorrt_detector --help");
    }
    if (given.iou >= 0) {
        given.options.iou = given.iou;
    }
    const Summary summary = detect(given);
    std::cout << render(summary, given.json);
    return summary.interrupted ? exit_interrupted : 0;
}

}  // namespace
}  // namespace raudo::app

int main(int count, char** words) {
    for (const int signal : {SIGINT, SIGTERM}) {
        std::signal(signal, [](int) { raudo::app::interrupted = true; });
    }
    cv::setNumThreads(1);  // the stages run side by side already
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);  // the threads allocate little: arenas of their own would be waste
#endif
    try {
        return raudo::app::main_checked(count, words);
    } catch (const raudo::Error& error) {
        return raudo::app::fail(error.what(), error.hint());
    } catch (const std::exception& error) {
        return raudo::app::fail(error.what(), "this should not happen; please report it");
    }
}
