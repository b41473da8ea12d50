#include "draw.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <opencv2/imgproc.hpp>

namespace raudo::app {
namespace {

constexpr int font = cv::FONT_HERSHEY_DUPLEX;
constexpr double golden_angle = 137.50776405;
constexpr std::size_t name_length = 48;

int at_least(int least, double value) {
    return std::max(least, static_cast<int>(std::nearbyint(value)));
}

/// The BGR colour of a class: always the same, and far from its neighbours' hues.
cv::Scalar colour(std::int64_t label) {
    constexpr std::array<std::array<int, 2>, 3> tones = {{{200, 255}, {255, 225}, {150, 255}}};
    const double hue = std::fmod(200 + static_cast<double>(label) * golden_angle, 360);
    const auto& tone = tones[static_cast<std::size_t>(label / 8 % 3)];
    cv::Mat pixel(1, 1, CV_8UC3, cv::Scalar(at_least(0, hue / 2) % 180, tone[0], tone[1]));
    cv::cvtColor(pixel, pixel, cv::COLOR_HSV2BGR);
    return pixel.at<cv::Vec3b>(0, 0);
}

/// Black or white, whichever contrasts more (WCAG 2.1 relative luminance).
cv::Scalar ink_on(const cv::Scalar& background) {
    constexpr std::array<double, 3> weights = {0.0722, 0.7152, 0.2126};
    double luminance = 0;
    for (int channel = 0; channel < 3; ++channel) {
        const double c = background[channel] / 255;
        const double linear = c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
        luminance += weights[static_cast<std::size_t>(channel)] * linear;
    }
    return luminance > 0.179 ? cv::Scalar(0, 0, 0) : cv::Scalar(255, 255, 255);
}

/// A name in printable ASCII, all that OpenCV's fonts have.
std::string plain_text(const std::string& name) {
    std::string safe;
    for (const char c : name) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte & 0xC0U) != 0x80U) {  // one mark for a character of several bytes
            safe += c >= ' ' && c <= '~' ? c : '?';
        }
    }
    return safe.size() <= name_length ? safe : safe.substr(0, name_length - 3) + "...";
}

void draw_label(cv::Mat& canvas, cv::Point corner, const std::string& text, const cv::Scalar& tint,
                double unit) {
    const double scale = std::max(0.35, 0.42 * unit);
    const int stroke = at_least(1, 0.7 * unit), pad = at_least(2, 3 * unit);
    int descent = 0;
    const cv::Size size = cv::getTextSize(text, font, scale, stroke, &descent);
    const int tall = size.height + descent + pad;
    // Above the box where there is room, else inside it; and never past the image's right edge.
    const int low = corner.y >= tall ? corner.y : std::min(corner.y + tall, canvas.rows);
    const int start = std::max(0, std::min(corner.x, canvas.cols - size.width - 2 * pad));
    cv::rectangle(canvas, {start, low - tall}, {start + size.width + 2 * pad, low}, tint,
                  cv::FILLED);
    cv::putText(canvas, text, {start + pad, low - descent - pad / 2}, font, scale, ink_on(tint),
                stroke, cv::LINE_AA);
}

}  // namespace

void draw(cv::Mat& image, const std::vector<Detection>& detections,
          const std::vector<std::string>& classes) {
    const double unit = std::max(image.rows, image.cols) / 640.0;
    const auto corner = [&](float x, float y) {
        const auto inside = [](float value, int size) {
            return std::isnan(value) ? 0
                                     : static_cast<int>(std::nearbyint(
                                           std::clamp(value, 0.0F, static_cast<float>(size - 1))));
        };
        return cv::Point(inside(x, image.cols), inside(y, image.rows));
    };
    for (auto found = detections.rbegin(); found != detections.rend(); ++found) {
        const auto& [left, top, right, bottom] = found->box;
        cv::rectangle(image, corner(left, top), corner(right, bottom), colour(found->label),
                      at_least(1, 1.8 * unit));
    }
    for (auto found = detections.rbegin(); found != detections.rend(); ++found) {
        std::array<char, 16> score{};
        std::snprintf(score.data(), score.size(), " %.2f", static_cast<double>(found->score));
        const std::string name = plain_text(classes[static_cast<std::size_t>(found->label)]);
        draw_label(image, corner(found->box[0], found->box[1]), name + score.data(),
                   colour(found->label), unit);
    }
}

}  // namespace raudo::app
