/// Where TensorRT runs one frame after the other.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>
#include <vector>

#include "../bilinear.hpp"
#include "../letterbox.hpp"
#include "../manifest.hpp"
#include "backend.hpp"
#include "cuda.hpp"

namespace raudo {

/// One tensor of an engine.
struct Tensor {
    std::string name;
    Shape shape;
    nvinfer1::DataType type;
};

/// What an engine takes and gives.
struct Tensors {
    Tensor images;
    /// Boxes, scores and, where NMS is part of the model, labels.
    std::vector<Tensor> outputs;
};

/// Bytes of a tensor. Throws Error where its type is none that detectors have.
std::size_t bytes_of(const Tensor& tensor);
/// Bytes of an image.
std::size_t bytes_of(const Fit& placed);
/// Whether two images have the same size.
bool same_size(const Fit& a, const Fit& b);

/// The process's one logger: TensorRT keeps the first, and hears no other.
nvinfer1::ILogger& logger();
/// The last error that TensorRT wrote to it.
std::string last_error();

/// The pinned memory of one frame, on its way to the GPU and back.
struct Buffers {
    Fit placed{};
    cuda::PinnedArray<std::uint8_t> pixels;
    std::vector<cuda::PinnedArray<std::uint8_t>> outputs;
};

/// A context of the engine, with its memory on the GPU and its CUDA graph.
///
/// A frame is copied from pinned memory to the GPU, goes through letterbox and engine, which are the
/// graph, and its outputs are copied back. The graph is recorded again when frames change their size.
class Lane {
public:
    /// Throws Error: the engine takes no single image, or memory is short. All must outlive the lane.
    Lane(nvinfer1::ICudaEngine& engine, const Tensors& tensors, const Spec& spec);

    /// Runs a blank frame: at a first run, kernels are loaded and memory is allocated, which frames
    /// would wait for.
    void warm_up();

    /// Runs one frame, from its pixels to its outputs.
    void run(const Buffers& frame);

private:
    void take_one_image(const nvinfer1::ICudaEngine& engine);
    void bind(const std::string& name, void* memory);
    void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind way);
    void upload(const std::vector<Tap>& from, Tap* to);
    void resize(const Fit& placed);
    void queue();

    const Tensors& tensors_;
    const Spec& spec_;
    cuda::Stream stream_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    Fit placed_{};
    cuda::DeviceArray<std::uint8_t> image_, input_;
    cuda::DeviceArray<Tap> rows_, columns_;
    std::vector<cuda::DeviceArray<std::uint8_t>> outputs_;
    cuda::Graph graph_;
};

}  // namespace raudo
