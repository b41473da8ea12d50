/// TensorRT 8.5 to 11, and TensorRT for RTX, on NVIDIA GPUs.
///
/// A frame is one CUDA graph: pinned memory -> GPU -> letterbox -> engine -> pinned memory. It is
/// recorded again when the frames change their size.
#include <NvInfer.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>

#include "backend.hpp"
#include "cuda.hpp"
#include "letterbox.cuh"

namespace raudo {
namespace {

using nvinfer1::DataType;

class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR) {
            const std::lock_guard lock(mutex_);
            last_ = message;
        }
    }

    std::string last() const {
        const std::lock_guard lock(mutex_);
        return last_;
    }

private:
    mutable std::mutex mutex_;
    std::string last_;
};

/// The process's one logger: TensorRT keeps the first, and hears no other.
Logger& logger() {
    static Logger only;
    return only;
}

/// One tensor of an engine, in TensorRT's own order.
struct Tensor {
    std::string name;
    Shape shape;
    DataType type;
    bool input;
};

std::size_t bytes_of(DataType type) {
    switch (type) {
        case DataType::kUINT8:
            return 1;
        case DataType::kFLOAT:
        case DataType::kINT32:
            return 4;
#if NV_TENSORRT_MAJOR >= 10
        case DataType::kINT64:
            return 8;
#endif
        default:
            throw breaks_spec("a tensor has a type that detectors do not have");
    }
}

std::size_t bytes_of(const Tensor& tensor) {
    std::size_t bytes = bytes_of(tensor.type);
    for (const std::int64_t side : tensor.shape) {
        bytes *= static_cast<std::size_t>(side);
    }
    return bytes;
}

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

class TensorRtEngine : public Engine {
public:
    TensorRtEngine(const std::filesystem::path& file, Spec spec, int device)
        : spec_(std::move(spec)), device_(device) {
        cuda::check(cudaSetDevice(device_), "use the GPU");
        const std::vector<char> data = read_file(file);
        runtime_.reset(nvinfer1::createInferRuntime(logger()));
        if (runtime_ != nullptr) {
            engine_.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));
        }
        if (engine_ == nullptr) {
            throw does_not_load(file, logger().last() + " (this program has TensorRT " +
                                          std::to_string(NV_TENSORRT_MAJOR) + "." +
                                          std::to_string(NV_TENSORRT_MINOR) + ")");
        }
        read_tensors();
    }

    std::unique_ptr<Request> make_request() override;

    std::unique_ptr<nvinfer1::IExecutionContext> make_context() {
        cuda::check(cudaSetDevice(device_), "use the GPU");
        std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContext());
        if (context == nullptr) {
            throw Error("TensorRT cannot run the engine: " + logger().last(),
                        "is there memory left on the GPU? fewer --streams need less");
        }
        if (!context->setInputShape(images().name.c_str(),
                                    nvinfer1::Dims4{1, spec_.height, spec_.width, 3})) {
            throw breaks_spec("it does not take one image at a time");
        }
        return context;
    }

    const Spec& spec() const { return spec_; }
    int device() const { return device_; }
    const Tensor& images() const { return images_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }

private:
    void read_tensors() {
        std::vector<Tensor> inputs;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char* name = engine_->getIOTensorName(i);
            const bool input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            (input ? inputs : outputs_)
                .push_back({name, shape_of(engine_->getTensorShape(name)),
                            engine_->getTensorDataType(name), input});
        }
        order_outputs();
        std::vector<Shape> shapes;
        for (Tensor& output : outputs_) {
            output.shape.at(0) = 1;  // an open batch
            shapes.push_back(output.shape);
        }
        if (inputs.size() != 1 || inputs[0].type != DataType::kUINT8) {
            throw breaks_spec("it does not take one tensor of bytes");
        }
        images_ = inputs[0];
        check_shapes(spec_, images_.shape, shapes);
        if (outputs_[0].type != DataType::kFLOAT || outputs_[1].type != DataType::kFLOAT) {
            throw breaks_spec("its boxes or scores are not float32");
        }
        for (const Tensor& output : outputs_) {
            if (std::any_of(output.shape.begin(), output.shape.end(),
                            [](std::int64_t side) { return side < 1; })) {
                throw breaks_spec("the size of " + output.name + " is open");
            }
        }
    }

    /// Builders may list the outputs in an order of their own.
    void order_outputs() {
        std::vector<Tensor> ordered;
        for (const char* name : {"boxes", "scores", "labels"}) {
            for (const Tensor& output : outputs_) {
                if (output.name == name) {
                    ordered.push_back(output);
                }
            }
        }
        if (ordered.size() != outputs_.size() || ordered.size() < 2) {
            throw breaks_spec("its outputs are not boxes, scores and labels");
        }
        outputs_ = std::move(ordered);
    }

    Spec spec_;
    int device_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    Tensor images_{};
    std::vector<Tensor> outputs_;
};

class TensorRtRequest : public Request {
public:
    explicit TensorRtRequest(TensorRtEngine& engine)
        : engine_(engine), context_(engine.make_context()), stream_(cuda::make_stream()) {
        const Spec& spec = engine.spec();
        const auto height = static_cast<std::size_t>(spec.height);
        const auto width = static_cast<std::size_t>(spec.width);
        input_ = cuda::device_array<std::uint8_t>(height * width * 3);
        rows_ = cuda::device_array<Tap>(height);
        columns_ = cuda::device_array<Tap>(width);
        bind(engine.images().name, input_.get());
        for (const Tensor& output : engine.outputs()) {
            const std::size_t bytes = bytes_of(output);
            device_.push_back(cuda::device_array<std::uint8_t>(bytes));
            host_.push_back(cuda::pinned_array<std::uint8_t>(bytes));
            bind(output.name, device_.back().get());
        }
    }

    void prepare(const Image& image, const Fit& placed) override {
        cuda::check(cudaSetDevice(engine_.device()), "use the GPU");
        if (image.width != placed_.image_width || image.height != placed_.image_height) {
            resize(placed);
        }
        const std::size_t row = static_cast<std::size_t>(image.width) * 3;
        const std::size_t stride = image.stride == 0 ? row : image.stride;
        for (int y = 0; y < image.height; ++y) {
            const auto line = static_cast<std::size_t>(y);
            std::memcpy(pixels_.get() + line * row, image.data + line * stride, row);
        }
    }

    Outputs run() override {
        cuda::check(cudaSetDevice(engine_.device()), "use the GPU");
        if (graph_ == nullptr) {
            queue();  // TensorRT allocates on the first run, which a graph cannot hold
            cuda::check(cudaStreamSynchronize(stream_.get()), "run the engine");
            graph_ = cuda::record(stream_.get(), [this] { queue(); });
        }
        cuda::check(cudaGraphLaunch(graph_.get(), stream_.get()), "launch the graph");
        cuda::check(cudaStreamSynchronize(stream_.get()), "run the engine");
        return outputs();
    }

private:
    void bind(const std::string& name, void* memory) {
        if (!context_->setTensorAddress(name.c_str(), memory)) {
            throw breaks_spec("it takes no memory for " + name);
        }
    }

    /// Makes room for frames of another size.
    void resize(const Fit& placed) {
        const auto bytes = static_cast<std::size_t>(placed.image_width) *
                           static_cast<std::size_t>(placed.image_height) * 3;
        graph_.reset();
        pixels_ = cuda::pinned_array<std::uint8_t>(bytes);
        image_ = cuda::device_array<std::uint8_t>(bytes);
        upload(row_taps(placed.image_height, placed.height), rows_.get());
        upload(column_taps(placed.image_width, placed.width), columns_.get());
        placed_ = placed;
    }

    static void upload(const std::vector<Tap>& from, Tap* to) {
        cuda::check(cudaMemcpy(to, from.data(), from.size() * sizeof(Tap), cudaMemcpyHostToDevice),
                    "copy to the GPU");
    }

    /// Queues all the work of one frame on the stream.
    void queue() {
        const Spec& spec = engine_.spec();
        const cudaStream_t stream = stream_.get();
        const auto bytes = static_cast<std::size_t>(placed_.image_width) *
                           static_cast<std::size_t>(placed_.image_height) * 3;
        cuda::check(
            cudaMemcpyAsync(image_.get(), pixels_.get(), bytes, cudaMemcpyHostToDevice, stream),
            "copy to the GPU");
        letterbox_on_device(
            {image_.get(), placed_.image_width, placed_.left, placed_.top, placed_.width,
             placed_.height, rows_.get(), columns_.get(),
             is_halved(placed_.image_height, placed_.image_width, placed_.height, placed_.width),
             static_cast<std::uint8_t>(spec.letterbox.fill), input_.get(), spec.width, spec.height},
            stream);
        cuda::check(cudaGetLastError(), "start the letterbox");
        if (!context_->enqueueV3(stream)) {
            throw Error("TensorRT cannot run the engine", "make it again with 'raudo export'");
        }
        for (std::size_t i = 0; i < host_.size(); ++i) {
            cuda::check(
                cudaMemcpyAsync(host_[i].get(), device_[i].get(), bytes_of(engine_.outputs()[i]),
                                cudaMemcpyDeviceToHost, stream),
                "copy from the GPU");
        }
    }

    Outputs outputs() const {
        const std::vector<Tensor>& tensors = engine_.outputs();
        Outputs found;
        found.boxes = reinterpret_cast<const float*>(host_[0].get());
        found.scores = reinterpret_cast<const float*>(host_[1].get());
        found.rows = static_cast<std::size_t>(tensors[0].shape[1]);
        if (tensors.size() == 3 && bytes_of(tensors[2].type) == sizeof(std::int64_t)) {
            found.labels64 = reinterpret_cast<const std::int64_t*>(host_[2].get());
        } else if (tensors.size() == 3) {
            found.labels32 = reinterpret_cast<const std::int32_t*>(host_[2].get());
        }
        return found;
    }

    TensorRtEngine& engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    cuda::Stream stream_;
    Fit placed_{};
    cuda::PinnedArray<std::uint8_t> pixels_;
    cuda::DeviceArray<std::uint8_t> image_, input_;
    cuda::DeviceArray<Tap> rows_, columns_;
    std::vector<cuda::DeviceArray<std::uint8_t>> device_;
    std::vector<cuda::PinnedArray<std::uint8_t>> host_;
    cuda::Graph graph_;
};

std::unique_ptr<Request> TensorRtEngine::make_request() {
    return std::make_unique<TensorRtRequest>(*this);
}

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const std::filesystem::path& file, const Manifest& manifest,
                                      const LoadOptions& options) {
    return std::make_unique<TensorRtEngine>(file, manifest.spec, device_number(options.device));
}

}  // namespace raudo
