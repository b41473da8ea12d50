/// The raudo detector: an engine file and its manifest in, detections out.
///
/// It prepares the same pixels and selects the same boxes as `raudo.detector` in Python, which is
/// the reference: its tests hold both to the same results, frame by frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(_WIN32) && defined(RAUDO_SHARED)
#ifdef RAUDO_BUILDING
#define RAUDO_API __declspec(dllexport)
#else
#define RAUDO_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define RAUDO_API __attribute__((visibility("default")))
#else
#define RAUDO_API
#endif

namespace raudo {

/// Something that the user can mend: one line that says what is wrong, one that says what to do.
class RAUDO_API Error : public std::runtime_error {
public:
    Error(const std::string& message, std::string hint);

    const std::string& hint() const noexcept { return hint_; }

private:
    std::string hint_;
};

/// An 8-bit BGR image in memory that somebody else owns.
struct Image {
    const std::uint8_t* data = nullptr;
    int height = 0;
    int width = 0;
    /// Bytes from one row to the next; 0 where the rows follow each other without a gap.
    std::size_t stride = 0;
};

/// One object that was found.
struct Detection {
    /// Left, top, right, bottom, in pixels of the original image.
    std::array<float, 4> box{};
    /// 0 to 1.
    float score = 0;
    /// Index into `Detector::classes()`.
    std::int64_t label = 0;
};

/// How an engine is loaded, and which of its outputs become detections.
struct Options {
    /// Lowest score that is kept.
    double confidence = 0.25;
    /// IoU above which NMS drops the lower-scored box of a class; none takes the model family's.
    std::optional<double> iou;
    /// Names or numbers of the classes to keep; empty keeps all.
    std::vector<std::string> classes;
    /// Where to run, in the runtime's own words; empty takes its first choice.
    std::string device;
    /// Folder where a runtime may keep what it compiled, to start faster; empty keeps nothing.
    std::string cache;
    /// CPU threads in all; 0 takes all that this process may use.
    int threads = 0;
    /// Number of jobs that may `infer` at once: 1 for the lowest latency, more for throughput.
    int streams = 1;
};

class Job;

/// A loaded engine. Its jobs may be used from several threads at once, each from one at a time.
class RAUDO_API Detector {
public:
    /// Loads an engine file (`.engine`, `.xml` or `.onnx`) with its manifest, `<file>.json`.
    ///
    /// Throws Error: a file is missing, damaged or not for this program, machine or device; a
    /// class or a threshold makes no sense.
    explicit Detector(const std::filesystem::path& engine, const Options& options = {});
    ~Detector();
    Detector(Detector&&) noexcept;
    Detector& operator=(Detector&&) noexcept;

    /// Names by label.
    const std::vector<std::string>& classes() const;
    /// Rows of the engine's input: the largest, where it has several rectangles.
    int height() const;
    /// Columns of that input.
    int width() const;

    /// Detects in one image, best score first. Throws Error where the image is none.
    std::vector<Detection> detect(const Image& image);

    /// Makes a job: the buffers of one image on its way through the three steps.
    Job make_job() const;

private:
    friend class Job;
    struct State;
    std::unique_ptr<State> state_;
};

/// One image on its way: `prepare`, then `infer`, then `select`. It must not outlive its detector.
class RAUDO_API Job {
public:
    ~Job();
    Job(Job&&) noexcept;
    Job& operator=(Job&&) noexcept;

    /// Letterboxes an image into the engine's input, the smallest that keeps its scale. Throws Error where the image is none.
    void prepare(const Image& image);
    /// Runs the engine.
    void infer();
    /// Chooses the detections, best score first, in pixels of the image that was prepared.
    std::vector<Detection> select() const;

private:
    friend class Detector;
    struct State;
    explicit Job(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

/// Runtimes that this build can use, by name.
RAUDO_API std::vector<std::string> backends();

}  // namespace raudo
