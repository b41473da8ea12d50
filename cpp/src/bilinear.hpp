/// OpenCV's bilinear interpolation of bytes, in its own fixed-point arithmetic, so that a GPU gets
/// the very pixels that `cv::resize` with INTER_LINEAR gives on a CPU.
///
/// Source: OpenCV, modules/imgproc/src/resize.cpp; weights have 11 bits, rows are interpolated
/// first, and columns then drop the lower 4 bits of the rows' sums.
#pragma once

#include <cstdint>
#include <vector>

#ifdef __CUDACC__
#define RAUDO_DEVICE __host__ __device__
#else
#define RAUDO_DEVICE
#endif

namespace raudo {

/// The two source pixels of a target pixel along one axis, and their weights.
struct Tap {
    std::int32_t first;
    std::int32_t second;
    std::int32_t first_weight;
    std::int32_t second_weight;
};

/// Returns the taps of a row that is scaled from `from` to `to` pixels.
///
/// Beyond the edges the outermost pixel has all the weight.
std::vector<Tap> column_taps(int from, int to);

/// Returns the taps of a column that is scaled from `from` to `to` pixels.
///
/// Beyond the edges both taps are the outermost pixel, and keep their weights.
std::vector<Tap> row_taps(int from, int to);

/// Whether OpenCV takes the mean of 2x2 pixels instead: it does where both sides are halved.
constexpr bool is_halved(int from_height, int from_width, int to_height, int to_width) {
    return from_width == 2 * to_width && from_height == 2 * to_height;
}

/// Interpolates one channel of four pixels.
RAUDO_DEVICE inline std::uint8_t interpolate(int top_left, int top_right, int bottom_left,
                                             int bottom_right, const Tap& column, const Tap& row) {
    const int top = top_left * column.first_weight + top_right * column.second_weight;
    const int bottom = bottom_left * column.first_weight + bottom_right * column.second_weight;
    const int sum =
        ((row.first_weight * (top >> 4)) >> 16) + ((row.second_weight * (bottom >> 4)) >> 16);
    return static_cast<std::uint8_t>((sum + 2) >> 2);
}

/// Averages one channel of the 2x2 pixels of a halved image.
RAUDO_DEVICE inline std::uint8_t mean(int top_left, int top_right, int bottom_left,
                                      int bottom_right) {
    return static_cast<std::uint8_t>((top_left + top_right + bottom_left + bottom_right + 2) >> 2);
}

}  // namespace raudo
