/// TensorRT 8.5 to 11, and TensorRT for RTX, on NVIDIA GPUs.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <utility>

#include "backend.hpp"
#include "cuda.hpp"
#include "lane.hpp"

namespace raudo {
namespace {

using nvinfer1::DataType;

/// Most frames under way at once: while one is copied, others are computed.
constexpr int max_lanes = 4;

Shape shape_of(const nvinfer1::Dims& dimensions) {
    return {dimensions.d, dimensions.d + std::max(0, dimensions.nbDims)};
}

std::vector<char> read_file(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

int device_number(const std::string& device) {
    const std::string digits = device.rfind("cuda:", 0) == 0 ? device.substr(5) : device;
    if (device.empty() || device == "cuda") {
        return 0;
    }
    int count = 0;
    cuda::check(cudaGetDeviceCount(&count), "count the GPUs");
    if (digits.size() != 1 || digits[0] < '0' || digits[0] - '0' >= count) {
        throw Error("there is no GPU " + device, "cuda:0 is the first of " + std::to_string(count));
    }
    return digits[0] - '0';
}

/// Builders may list the outputs in an order of their own.
std::vector<Tensor> in_order(const std::vector<Tensor>& outputs) {
    std::vector<Tensor> ordered;
    for (const char* name : {"boxes", "scores", "labels"}) {
        for (const Tensor& output : outputs) {
            if (output.name == name) {
                ordered.push_back(output);
            }
        }
    }
    if (ordered.size() != outputs.size() || ordered.size() < 2) {
        throw breaks_spec("its outputs are not boxes, scores and labels");
    }
    return ordered;
}

bool is_whole(DataType type) {
#if NV_TENSORRT_MAJOR >= 10
    if (type == DataType::kINT64) {
        return true;
    }
#endif
    return type == DataType::kINT32;
}

/// Reads and checks what an engine takes and gives, for one image.
Tensors read_tensors(const nvinfer1::ICudaEngine& engine, const Spec& spec) {
    std::vector<Tensor> inputs, outputs;
    for (std::int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
        const char* name = engine.getIOTensorName(i);
        const bool input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        (input ? inputs : outputs)
            .push_back({name, shape_of(engine.getTensorShape(name)), engine.getTensorDataType(name)});
    }
    outputs = in_order(outputs);
    std::vector<Shape> shapes;
    for (Tensor& output : outputs) {
        output.shape.at(0) = 1;  // an open batch
        shapes.push_back(output.shape);
    }
    if (inputs.size() != 1 || inputs[0].type != DataType::kUINT8) {
        throw breaks_spec("it does not take one tensor of bytes");
    }
    check_shapes(spec, inputs[0].shape, shapes);
    if (outputs[0].type != DataType::kFLOAT || outputs[1].type != DataType::kFLOAT) {
        throw breaks_spec("its boxes or scores are not float32");
    }
    if (outputs.size() == 3 && !is_whole(outputs[2].type)) {
        throw breaks_spec("its labels are no whole numbers");
    }
    for (const Tensor& output : outputs) {
        if (std::any_of(output.shape.begin(), output.shape.end(),
                        [](std::int64_t side) { return side < 1; })) {
            throw breaks_spec("the size of " + output.name + " is open");
        }
    }
    return {inputs[0], outputs};
}

class TensorRtEngine : public Engine {
public:
    TensorRtEngine(const std::filesystem::path& file, Spec spec, int device, int lanes)
        : spec_(std::move(spec)), device_(device), runtime_(nvinfer1::createInferRuntime(logger())) {
        const std::vector<char> data = read_file(file);
        engines_.push_back(deserialize(file, data));
        tensors_ = read_tensors(*engines_[0], spec_);
        for (int i = 0; i < lanes; ++i) {
            if (i > 0 && !shares_profile()) {
                engines_.push_back(deserialize(file, data));
            }
            lanes_.push_back(std::make_unique<Lane>(*engines_.back(), tensors_, spec_));
            lanes_.back()->warm_up();
            free_.push_back(lanes_.back().get());
        }
    }

    std::unique_ptr<Request> make_request() override;

    /// Runs one frame on the first lane that is free.
    void run(const Buffers& frame) {
        use_device();
        const Taken taken(*this);
        taken.lane->run(frame);
    }

    void use_device() const { cuda::check(cudaSetDevice(device_), "use the GPU"); }

    const Tensors& tensors() const { return tensors_; }

private:
    /// A lane that is given back in the end.
    struct Taken {
        explicit Taken(TensorRtEngine& from) : engine(from) {
            std::unique_lock lock(engine.mutex_);
            engine.given_back_.wait(lock, [this] { return !engine.free_.empty(); });
            lane = engine.free_.back();
            engine.free_.pop_back();
        }
        ~Taken() {
            {
                const std::lock_guard lock(engine.mutex_);
                engine.free_.push_back(lane);
            }
            engine.given_back_.notify_one();
        }
        Taken(const Taken&) = delete;
        Taken& operator=(const Taken&) = delete;

        TensorRtEngine& engine;
        Lane* lane = nullptr;
    };

    std::unique_ptr<nvinfer1::ICudaEngine> deserialize(const std::filesystem::path& file,
                                                       const std::vector<char>& data) {
        std::unique_ptr<nvinfer1::ICudaEngine> engine;
        if (runtime_ != nullptr) {
            engine.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));
        }
        if (engine == nullptr) {
            throw does_not_load(file, last_error() + " (this program has TensorRT " +
                                          std::to_string(NV_TENSORRT_MAJOR) + "." +
                                          std::to_string(NV_TENSORRT_MINOR) + ")");
        }
        return engine;
    }

    /// Before version 10, the contexts of one engine each need a profile of their own where the batch
    /// is open.
    bool shares_profile() const {
        return NV_TENSORRT_MAJOR >= 10 || tensors_.images.shape.at(0) == 1;
    }

    Spec spec_;
    int device_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::vector<std::unique_ptr<nvinfer1::ICudaEngine>> engines_;
    Tensors tensors_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    std::mutex mutex_;
    std::condition_variable given_back_;
    std::vector<Lane*> free_;
};

class TensorRtRequest : public Request {
public:
    explicit TensorRtRequest(TensorRtEngine& engine) : engine_(engine) {
        engine.use_device();
        for (const Tensor& output : engine.tensors().outputs) {
            frame_.outputs.push_back(cuda::pinned_array<std::uint8_t>(bytes_of(output)));
        }
    }

    void prepare(const Image& image, const Fit& placed) override {
        if (!same_size(placed, frame_.placed)) {
            engine_.use_device();
            frame_.pixels = cuda::pinned_array<std::uint8_t>(bytes_of(placed));
            frame_.placed = placed;
        }
        const std::size_t row = static_cast<std::size_t>(image.width) * 3;
        const std::size_t stride = image.stride == 0 ? row : image.stride;
        for (int y = 0; y < image.height; ++y) {
            const auto line = static_cast<std::size_t>(y);
            std::memcpy(frame_.pixels.get() + line * row, image.data + line * stride, row);
        }
    }

    Outputs run() override {
        engine_.run(frame_);
        const std::vector<Tensor>& tensors = engine_.tensors().outputs;
        const auto& host = frame_.outputs;
        Outputs found;
        found.boxes = reinterpret_cast<const float*>(host[0].get());
        found.scores = reinterpret_cast<const float*>(host[1].get());
        found.rows = static_cast<std::size_t>(tensors[0].shape[1]);
        if (tensors.size() == 3 && tensors[2].type == DataType::kINT32) {
            found.labels32 = reinterpret_cast<const std::int32_t*>(host[2].get());
        } else if (tensors.size() == 3) {
            found.labels64 = reinterpret_cast<const std::int64_t*>(host[2].get());
        }
        return found;
    }

private:
    TensorRtEngine& engine_;
    Buffers frame_;
};

std::unique_ptr<Request> TensorRtEngine::make_request() {
    return std::make_unique<TensorRtRequest>(*this);
}

/// Refuses an engine that was made for another kind of GPU, or with another driver.
void check_machine(const std::filesystem::path& file, const Manifest& manifest, int device) {
    cudaDeviceProp found{};
    cuda::check(cudaGetDeviceProperties(&found, device), "look at the GPU");
    int driver = 0;
    cuda::check(cudaDriverGetVersion(&driver), "ask for the driver");
    const auto pair = [](int major, int minor) {
        return std::to_string(major) + "." + std::to_string(minor);
    };
    const std::vector<std::pair<std::string, std::string>> here = {
        {"gpu", found.name},
        {"compute_capability", pair(found.major, found.minor)},
        {"driver", "CUDA " + pair(driver / 1000, driver % 1000 / 10)}};
    for (const auto& [key, value] : here) {
        const auto made = manifest.machine.find(key);
        if (made != manifest.machine.end() &&
            (", " + made->second + ", ").find(", " + value + ", ") == std::string::npos) {
            throw Error(file.string() + " was built for another machine: " + key + " " +
                            made->second + ", here " + value,
                        "make it here: raudo export " + file.string() + " --rebuild");
        }
    }
}

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const std::filesystem::path& file, const Manifest& manifest,
                                      const LoadOptions& options) {
    const int device = device_number(options.device);
    cuda::check(cudaSetDevice(device), "use the GPU");
    check_machine(file, manifest, device);
    return std::make_unique<TensorRtEngine>(file, manifest.spec, device,
                                            std::min(max_lanes, options.streams));
}

}  // namespace raudo
