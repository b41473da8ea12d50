#include "lane.hpp"

#include <cstring>
#include <mutex>

#include "letterbox.cuh"

namespace raudo {
namespace {

using nvinfer1::DataType;

class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR) {
            const std::lock_guard lock(mutex_);
            last_.assign(message, std::strcspn(message, "\n"));  // the rest closes brackets
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

Logger& only_logger() {
    static Logger only;
    return only;
}

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

}  // namespace

nvinfer1::ILogger& logger() {
    return only_logger();
}

std::string last_error() {
    return only_logger().last();
}

std::size_t bytes_of(const Tensor& tensor) {
    std::size_t bytes = bytes_of(tensor.type);
    for (const std::int64_t side : tensor.shape) {
        bytes *= static_cast<std::size_t>(side);
    }
    return bytes;
}

bool same_size(const Fit& a, const Fit& b) {
    return a.image_width == b.image_width && a.image_height == b.image_height;
}

std::size_t bytes_of(const Fit& placed) {
    return static_cast<std::size_t>(placed.image_width) *
           static_cast<std::size_t>(placed.image_height) * 3;
}

Lane::Lane(nvinfer1::ICudaEngine& engine, const Tensors& tensors, const Spec& spec)
    : tensors_(tensors), spec_(spec), stream_(cuda::make_stream()) {
    context_.reset(engine.createExecutionContext());
    if (context_ == nullptr) {
        throw Error("TensorRT cannot run the engine: " + last_error(),
                    "is there memory left on the GPU? nvidia-smi tells");
    }
    take_one_image(engine);
    const auto height = static_cast<std::size_t>(spec.height);
    const auto width = static_cast<std::size_t>(spec.width);
    input_ = cuda::device_array<std::uint8_t>(height * width * 3);
    rows_ = cuda::device_array<Tap>(height);
    columns_ = cuda::device_array<Tap>(width);
    bind(tensors.images.name, input_.get());
    for (const Tensor& output : tensors.outputs) {
        outputs_.push_back(cuda::device_array<std::uint8_t>(bytes_of(output)));
        bind(output.name, outputs_.back().get());
    }
}

void Lane::warm_up() {
    Buffers blank;
    blank.placed = fit(spec_.height, spec_.width, spec_);
    blank.pixels = cuda::pinned_array<std::uint8_t>(bytes_of(blank.placed));
    std::memset(blank.pixels.get(), spec_.letterbox.fill, bytes_of(blank.placed));
    for (const Tensor& output : tensors_.outputs) {
        blank.outputs.push_back(cuda::pinned_array<std::uint8_t>(bytes_of(output)));
    }
    run(blank);
}

void Lane::run(const Buffers& frame) {
    const cudaStream_t stream = stream_.get();
    if (!same_size(frame.placed, placed_)) {
        resize(frame.placed);
    }
    copy(image_.get(), frame.pixels.get(), bytes_of(placed_), cudaMemcpyHostToDevice);
    if (graph_ == nullptr) {
        queue();  // TensorRT allocates on the first run, which a graph cannot hold
        cuda::check(cudaStreamSynchronize(stream), "run the engine");
        graph_ = cuda::record(stream, [this] { queue(); });
    }
    cuda::check(cudaGraphLaunch(graph_.get(), stream), "launch the graph");
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
        copy(frame.outputs[i].get(), outputs_[i].get(), bytes_of(tensors_.outputs[i]),
             cudaMemcpyDeviceToHost);
    }
    cuda::check(cudaStreamSynchronize(stream), "run the engine");
}

/// Chooses the first of the engine's profiles that takes one image, where the batch is open.
void Lane::take_one_image(const nvinfer1::ICudaEngine& engine) {
    if (tensors_.images.shape.at(0) == 1) {
        return;
    }
    const char* name = tensors_.images.name.c_str();
    for (std::int32_t i = 0; i < engine.getNbOptimizationProfiles(); ++i) {
        const auto least = engine.getProfileShape(name, i, nvinfer1::OptProfileSelector::kMIN);
        if (least.nbDims < 1 || least.d[0] > 1) {
            continue;
        }
        const nvinfer1::Dims4 image(1, spec_.height, spec_.width, 3);
        const bool chosen = i == 0 || context_->setOptimizationProfileAsync(i, stream_.get());
        cuda::check(cudaStreamSynchronize(stream_.get()), "choose a profile");
        if (chosen && context_->setInputShape(name, image)) {
            return;
        }
        throw Error("TensorRT cannot run the engine: " + last_error(),
                    "make it again with 'raudo export'");
    }
    throw breaks_spec("it does not take one image at a time");
}

void Lane::bind(const std::string& name, void* memory) {
    if (!context_->setTensorAddress(name.c_str(), memory)) {
        throw breaks_spec("it takes no memory for " + name);
    }
}

void Lane::copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind way) {
    cuda::check(cudaMemcpyAsync(to, from, bytes, way, stream_.get()), "copy a frame");
}

/// Makes room for frames of another size.
void Lane::resize(const Fit& placed) {
    graph_.reset();
    image_ = cuda::device_array<std::uint8_t>(bytes_of(placed));
    upload(row_taps(placed.image_height, placed.height), rows_.get());
    upload(column_taps(placed.image_width, placed.width), columns_.get());
    placed_ = placed;
}

void Lane::upload(const std::vector<Tap>& from, Tap* to) {
    copy(to, from.data(), from.size() * sizeof(Tap), cudaMemcpyHostToDevice);
    cuda::check(cudaStreamSynchronize(stream_.get()), "copy to the GPU");
}

/// Queues letterbox and engine on the stream.
void Lane::queue() {
    letterbox_on_device(
        {image_.get(), placed_.image_width, placed_.left, placed_.top, placed_.width,
         placed_.height, rows_.get(), columns_.get(),
         is_halved(placed_.image_height, placed_.image_width, placed_.height, placed_.width),
         static_cast<std::uint8_t>(spec_.letterbox.fill), input_.get(), spec_.width, spec_.height},
        stream_.get());
    cuda::check(cudaGetLastError(), "start the letterbox");
    if (!context_->enqueueV3(stream_.get())) {
        throw Error("TensorRT cannot run the engine: " + last_error(),
                    "make it again with 'raudo export'");
    }
}

}  // namespace raudo
