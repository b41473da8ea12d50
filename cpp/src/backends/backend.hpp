/// What a runtime does for the detector; each has one file, named after it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../letterbox.hpp"
#include "../manifest.hpp"
#include "../selection.hpp"

namespace raudo {

/// The buffers of one image, and the right to run the engine on them.
class Request {
public:
    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    virtual ~Request() = default;

    /// Letterboxes an image into the engine's input.
    virtual void prepare(const Image& image, const Fit& placed) = 0;
    /// Runs the engine; the outputs hold until the next run.
    virtual Outputs run() = 0;
};

/// A loaded engine.
class Engine {
public:
    Engine() = default;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    virtual ~Engine() = default;

    virtual std::unique_ptr<Request> make_request() = 0;
};

/// How to load an engine.
struct LoadOptions {
    std::string device;
    std::string cache;
    int threads = 1;
    int streams = 1;
};

/// One runtime: its name in manifests, the suffix of its files, and how it opens them.
struct Backend {
    std::string_view name;
    std::string_view suffix;
    std::unique_ptr<Engine> (*open)(const std::filesystem::path& file, const Manifest& manifest,
                                    const LoadOptions& options);
};

/// The runtimes that this program was built with.
const std::vector<Backend>& registry();

using Shape = std::vector<std::int64_t>;

/// Checks an engine's tensors against the manifest: names apart, all that a run relies on.
///
/// A side below zero is one that the runtime leaves open. Throws Error.
void check_shapes(const Spec& spec, const Shape& images, const std::vector<Shape>& outputs);

/// Throws Error unless a device computes in a precision, `fp16` for instance: `able` are those that it
/// tells. A runtime may take another for it, without a word.
void check_precision(const std::filesystem::path& file, const std::string& precision,
                     const std::string& device, const std::vector<std::string>& able);

/// Returns the error of a file that its runtime does not load, with the runtime's own words.
Error does_not_load(const std::filesystem::path& file, const std::string& reason);

/// Returns the error of an engine that is not what its manifest says.
Error breaks_spec(const std::string& what);

}  // namespace raudo
