#include "letterbox.cuh"

namespace raudo {
namespace {

constexpr int tile_width = 32;
constexpr int tile_height = 8;

__global__ void letterbox_kernel(const DeviceLetterbox what) {
    const int x = blockIdx.x * tile_width + threadIdx.x;
    const int y = blockIdx.y * tile_height + threadIdx.y;
    if (x >= what.input_width || y >= what.input_height) {
        return;
    }
    std::uint8_t* pixel = what.input + (static_cast<std::size_t>(y) * what.input_width + x) * 3;
    const int column = x - what.left, row = y - what.top;
    if (column < 0 || column >= what.width || row < 0 || row >= what.height) {
        pixel[0] = pixel[1] = pixel[2] = what.fill;
        return;
    }
    const Tap across = what.columns[column], down = what.rows[row];
    const std::size_t stride = static_cast<std::size_t>(what.image_width) * 3;
    const std::uint8_t* top = what.image + down.first * stride;
    const std::uint8_t* bottom = what.image + down.second * stride;
    for (int channel = 0; channel < 3; ++channel) {
        const int left = across.first * 3 + channel, right = across.second * 3 + channel;
        pixel[channel] = what.halved
                             ? mean(top[left], top[right], bottom[left], bottom[right])
                             : interpolate(top[left], top[right], bottom[left], bottom[right],
                                           across, down);
    }
}

}  // namespace

void letterbox_on_device(const DeviceLetterbox& what, cudaStream_t stream) {
    const dim3 tile(tile_width, tile_height);
    const dim3 tiles((what.input_width + tile_width - 1) / tile_width,
                     (what.input_height + tile_height - 1) / tile_height);
    letterbox_kernel<<<tiles, tile, 0, stream>>>(what);
}

}  // namespace raudo
