/// The C++ twin of `raudo/images.py`: where an image lies in the engine's input, and its pixels.
#pragma once

#include <array>
#include <cstdint>

#include "manifest.hpp"
#include "raudo/detector.hpp"

namespace raudo {

/// Where an image lies in the engine's input: x_input = x_image * scale_x + left.
struct Fit {
    double scale_x = 1;
    double scale_y = 1;
    int left = 0;
    int top = 0;
    int width = 0;
    int height = 0;
    int image_width = 0;
    int image_height = 0;

    /// Maps a box from input pixels to image pixels, clipped to the image.
    std::array<float, 4> to_image(const float* box) const;
};

/// Returns where an image of that size lies in the engine's input.
Fit fit(int height, int width, const Spec& spec);

/// Throws Error unless the image has pixels.
void check(const Image& image);

/// Writes an image into the engine's input, [spec.height, spec.width, 3], at its place.
void letterbox(const Image& image, const Fit& placed, const Spec& spec, std::uint8_t* input);

}  // namespace raudo
