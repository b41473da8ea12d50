/// CUDA's memory, streams and graphs as objects that free themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include "raudo/detector.hpp"

namespace raudo::cuda {

/// Throws Error where a call of the CUDA runtime failed.
inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw Error(std::string("CUDA cannot ") + what + ": " + cudaGetErrorString(status),
                    "is the GPU free, and its driver recent enough? nvidia-smi tells");
    }
}

struct DeviceFree {
    void operator()(void* memory) const { cudaFree(memory); }
};
struct HostFree {
    void operator()(void* memory) const { cudaFreeHost(memory); }
};
struct StreamFree {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct GraphFree {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};

/// Memory on the GPU.
template <typename T>
using DeviceArray = std::unique_ptr<T[], DeviceFree>;
/// Pinned memory of the host, which the GPU reads and writes without the help of the CPU.
template <typename T>
using PinnedArray = std::unique_ptr<T[], HostFree>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamFree>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, GraphFree>;

template <typename T>
DeviceArray<T> device_array(std::size_t count) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, count * sizeof(T)), "allocate memory on the GPU");
    return DeviceArray<T>(static_cast<T*>(memory));
}

template <typename T>
PinnedArray<T> pinned_array(std::size_t count) {
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, count * sizeof(T), cudaHostAllocDefault), "pin memory");
    return PinnedArray<T>(static_cast<T*>(memory));
}

inline Stream make_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
    return Stream(stream);
}

/// Records what `work` queues on a stream, as a graph to launch at once.
template <typename Work>
Graph record(cudaStream_t stream, Work work) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin a graph");
    cudaGraph_t graph = nullptr;
    try {
        work();
    } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        cudaGraphDestroy(graph);
        throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "end a graph");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiateWithFlags(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "make a graph");
    return Graph(executable);
}

}  // namespace raudo::cuda
