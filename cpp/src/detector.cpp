#include "raudo/detector.hpp"

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

#ifdef __linux__
#include <sched.h>
#endif

#include "backends/backend.hpp"
#include "letterbox.hpp"
#include "manifest.hpp"
#include "rectangles.hpp"
#include "selection.hpp"

namespace raudo {
namespace {

int available_threads() {
#ifdef __linux__
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) {
        return CPU_COUNT(&cores);
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

const Backend& backend_of(const std::filesystem::path& engine, const Manifest& manifest) {
    std::string names;
    for (const Backend& backend : registry()) {
        if (backend.name == manifest.backend) {
            if (engine.extension() != backend.suffix) {
                throw Error(engine.string() + " does not end in " + std::string(backend.suffix) +
                                ", but its manifest says " + manifest.backend,
                            "engine and manifest keep the names that 'raudo export' gave them");
            }
            return backend;
        }
        names += (names.empty() ? "" : ", ") + std::string(backend.name);
    }
    throw Error(
        engine.string() + " is for " + manifest.backend + ", which this program was built without",
        "it has: " + names + "; see 'C++ detector' in README.md to build it with more");
}

/// Returns the label of a class given by name or by number.
std::size_t label_of(const std::string& word, const std::vector<std::string>& classes) {
    const auto named = std::find(classes.begin(), classes.end(), word);
    if (named != classes.end()) {
        return static_cast<std::size_t>(named - classes.begin());
    }
    const bool number =
        !word.empty() && word.size() < 7 &&
        std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number && std::stoul(word) < classes.size()) {
        return std::stoul(word);
    }
    std::string known;
    for (std::size_t i = 0; i < std::min<std::size_t>(10, classes.size()); ++i) {
        known += (i > 0 ? ", " : "") + classes[i];
    }
    throw Error("the model has no class '" + word + "'",
                "it has: " + known + (classes.size() > 10 ? ", ..." : ""));
}

void check_share(double value, const char* name) {
    if (!(value >= 0 && value <= 1)) {
        throw Error(std::string(name) + " " + std::to_string(value) + " is not from 0 to 1",
                    "give for instance 0.25");
    }
}

Selection selection_of(const Options& options, const Spec& spec) {
    Selection selection;
    selection.confidence = options.confidence;
    selection.iou = options.iou.value_or(spec.nms_iou);
    check_share(selection.confidence, "confidence");
    check_share(selection.iou, "IoU");
    if (!options.classes.empty()) {
        selection.wanted.assign(spec.classes.size(), false);
        for (const std::string& word : options.classes) {
            selection.wanted[label_of(word, spec.classes)] = true;
        }
    }
    return selection;
}

LoadOptions load_options(const Options& options) {
    if (options.threads < 0 || options.streams < 1) {
        throw Error("an engine needs at least one stream, and no negative number of threads",
                    "leave threads at 0 to use all");
    }
    return {options.device, options.cache,
            options.threads > 0 ? options.threads : available_threads(), options.streams};
}

}  // namespace

struct Detector::State {
    State(const std::filesystem::path& file, const Options& options) {
        for (auto& [path, manifest] : read_rectangles(file)) {
            specs.push_back(manifest.spec);
            if (engines.empty()) {
                selection = selection_of(options, manifest.spec);
            }
            engines.push_back(
                backend_of(path, manifest).open(path, manifest, load_options(options)));
        }
    }

    std::unique_ptr<Request> make_request(std::size_t rectangle) {
        const std::lock_guard lock(making);
        return engines[rectangle]->make_request();
    }

    /// An engine for each input rectangle, that of the model's own size first.
    std::vector<Spec> specs;
    std::vector<std::unique_ptr<Engine>> engines;
    Selection selection;
    std::mutex making;
    std::unique_ptr<Job> own;
};

struct Job::State {
    Detector::State& detector;
    /// One for each rectangle, made when the first image takes it.
    std::vector<std::unique_ptr<Request>> requests;
    std::size_t rectangle = 0;
    Fit placed{};
    Outputs outputs{};
};

Detector::Detector(const std::filesystem::path& engine, const Options& options)
    : state_(std::make_unique<State>(engine, options)) {}
Detector::~Detector() = default;
Detector::Detector(Detector&&) noexcept = default;
Detector& Detector::operator=(Detector&&) noexcept = default;

const std::vector<std::string>& Detector::classes() const {
    return state_->specs[0].classes;
}
int Detector::height() const {
    return state_->specs[0].height;
}
int Detector::width() const {
    return state_->specs[0].width;
}

std::vector<Detection> Detector::detect(const Image& image) {
    if (state_->own == nullptr) {
        state_->own = std::make_unique<Job>(make_job());
    }
    state_->own->prepare(image);
    state_->own->infer();
    return state_->own->select();
}

Job Detector::make_job() const {
    std::vector<std::unique_ptr<Request>> requests(state_->specs.size());
    return Job(std::make_unique<Job::State>(Job::State{*state_, std::move(requests)}));
}

Job::Job(std::unique_ptr<State> state) : state_(std::move(state)) {}
Job::~Job() = default;
Job::Job(Job&&) noexcept = default;
Job& Job::operator=(Job&&) noexcept = default;

void Job::prepare(const Image& image) {
    check(image);
    const std::vector<Spec>& specs = state_->detector.specs;
    state_->rectangle = smallest(image.height, image.width, specs);
    state_->placed = fit(image.height, image.width, specs[state_->rectangle]);
    std::unique_ptr<Request>& request = state_->requests[state_->rectangle];
    if (request == nullptr) {
        request = state_->detector.make_request(state_->rectangle);
    }
    request->prepare(image, state_->placed);
}

void Job::infer() {
    state_->outputs = state_->requests[state_->rectangle]->run();
}

std::vector<Detection> Job::select() const {
    const Detector::State& detector = state_->detector;
    std::vector<Detection> found = raudo::select(
        state_->outputs, detector.specs[state_->rectangle], detector.selection);
    for (Detection& detection : found) {
        detection.box = state_->placed.to_image(detection.box.data());
    }
    return found;
}

std::vector<std::string> backends() {
    std::vector<std::string> names;
    for (const Backend& backend : registry()) {
        names.emplace_back(backend.name);
    }
    return names;
}

}  // namespace raudo
