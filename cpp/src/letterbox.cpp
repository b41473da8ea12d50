#include "letterbox.hpp"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

namespace raudo {
namespace {

int scaled(int side, double scale, Rounding rounding) {
    const double exact = side * scale;
    // nearbyint rounds half to even, as Python's round does.
    return std::max(1,
                    static_cast<int>(rounding == Rounding::round ? std::nearbyint(exact) : exact));
}

/// `np.clip`, which keeps NaN.
float clip(float value, int high) {
    return std::min(std::max(value, 0.0F), static_cast<float>(high));
}

}  // namespace

std::array<float, 4> Fit::to_image(const float* box) const {
    const auto x = static_cast<float>(scale_x), y = static_cast<float>(scale_y);
    const auto dx = static_cast<float>(left), dy = static_cast<float>(top);
    return {clip((box[0] - dx) / x, image_width), clip((box[1] - dy) / y, image_height),
            clip((box[2] - dx) / x, image_width), clip((box[3] - dy) / y, image_height)};
}

Fit fit(int height, int width, const Spec& spec) {
    const Letterbox& rule = spec.letterbox;
    const double scale_x = static_cast<double>(spec.width) / width;
    const double scale_y = static_cast<double>(spec.height) / height;
    if (rule.placement == Placement::stretch) {
        return {scale_x, scale_y, 0, 0, spec.width, spec.height, width, height};
    }
    const double scale = std::min(scale_y, scale_x);
    const int new_width = scaled(width, scale, rule.rounding);
    const int new_height = scaled(height, scale, rule.rounding);
    // An odd remainder goes to the right and to the bottom.
    const bool center = rule.placement == Placement::center;
    const int left = center ? (spec.width - new_width) / 2 : 0;
    const int top = center ? (spec.height - new_height) / 2 : 0;
    return {scale, scale, left, top, new_width, new_height, width, height};
}

void check(const Image& image) {
    const auto row = static_cast<std::size_t>(std::max(image.width, 0)) * 3;
    if (image.data == nullptr || image.height < 1 || image.width < 1 ||
        (image.stride != 0 && image.stride < row)) {
        throw Error("an image must have pixels: uint8 [height, width, 3], BGR",
                    "check that it was decoded");
    }
}

void letterbox(const Image& image, const Fit& placed, const Spec& spec, std::uint8_t* input) {
    const cv::Mat source(image.height, image.width, CV_8UC3, const_cast<std::uint8_t*>(image.data),
                         image.stride);
    cv::Mat canvas(spec.height, spec.width, CV_8UC3, input);
    const cv::Rect window(placed.left, placed.top, placed.width, placed.height);
    cv::Mat inside = canvas(window);
    if (source.size() == inside.size()) {
        source.copyTo(inside);
    } else {
        cv::resize(source, inside, window.size(), 0, 0, cv::INTER_LINEAR);
    }
    const cv::Scalar grey = cv::Scalar::all(spec.letterbox.fill);
    const int right = window.x + window.width, bottom = window.y + window.height;
    canvas.rowRange(0, window.y).setTo(grey);
    canvas.rowRange(bottom, spec.height).setTo(grey);
    canvas(cv::Rect(0, window.y, window.x, window.height)).setTo(grey);
    canvas(cv::Rect(right, window.y, spec.width - right, window.height)).setTo(grey);
}

}  // namespace raudo
