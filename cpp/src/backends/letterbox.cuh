/// The letterbox of a frame on the GPU: resize and padding in one kernel, bytes in and bytes out.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../bilinear.hpp"

namespace raudo {

/// What the kernel needs; all pointers are to device memory.
struct DeviceLetterbox {
    /// uint8 [image_height, image_width, 3], rows without a gap.
    const std::uint8_t* image;
    int image_width;
    /// Where the scaled image lies in the input.
    int left, top, width, height;
    /// Taps of each row and column of the scaled image.
    const Tap* rows;
    const Tap* columns;
    /// Whether both sides are halved, see `is_halved`.
    bool halved;
    std::uint8_t fill;
    /// uint8 [input_height, input_width, 3].
    std::uint8_t* input;
    int input_width, input_height;
};

/// Queues the kernel on a stream. The pixels are those of `letterbox` on the CPU.
void letterbox_on_device(const DeviceLetterbox& what, cudaStream_t stream);

}  // namespace raudo
