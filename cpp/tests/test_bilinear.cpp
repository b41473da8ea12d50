#include <gtest/gtest.h>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <random>

#include "bilinear.hpp"

namespace raudo {
namespace {

cv::Mat resized(const cv::Mat& image, cv::Size size) {
    cv::Mat out(size, CV_8UC3);
    const auto rows = row_taps(image.rows, size.height);
    const auto columns = column_taps(image.cols, size.width);
    const bool halved = is_halved(image.rows, image.cols, size.height, size.width);
    for (int y = 0; y < size.height; ++y) {
        for (int x = 0; x < size.width; ++x) {
            const Tap& row = rows[static_cast<std::size_t>(y)];
            const Tap& column = columns[static_cast<std::size_t>(x)];
            const auto at = [&](int v, int u) { return image.at<cv::Vec3b>(v, u); };
            const auto a = at(row.first, column.first), b = at(row.first, column.second);
            const auto c = at(row.second, column.first), d = at(row.second, column.second);
            for (int channel = 0; channel < 3; ++channel) {
                out.at<cv::Vec3b>(y, x)[channel] =
                    halved
                        ? mean(a[channel], b[channel], c[channel], d[channel])
                        : interpolate(a[channel], b[channel], c[channel], d[channel], column, row);
            }
        }
    }
    return out;
}

class Resize : public testing::TestWithParam<std::array<int, 4>> {};

TEST_P(Resize, GivesThePixelsOfOpenCv) {
    const auto [height, width, to_height, to_width] = GetParam();
    cv::Mat image(height, width, CV_8UC3), expected;
    cv::RNG(7).fill(image, cv::RNG::UNIFORM, 0, 256);
    cv::resize(image, expected, {to_width, to_height}, 0, 0, cv::INTER_LINEAR);
    EXPECT_EQ(cv::norm(expected, resized(image, {to_width, to_height}), cv::NORM_INF), 0);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Resize,
                         testing::Values(std::array{540, 960, 234, 416},  // the highway video
                                         std::array{540, 960, 360, 640},
                                         std::array{1080, 1920, 360, 640},
                                         std::array{480, 640, 640, 640},  // stretched
                                         std::array{100, 100, 50, 50},    // halved
                                         std::array{100, 100, 50, 49}, std::array{64, 48, 640, 480},
                                         std::array{1, 1, 7, 5}, std::array{1, 300, 1, 64},
                                         std::array{333, 1, 64, 1}, std::array{7, 5, 6, 4},
                                         std::array{97, 331, 217, 640}));

TEST(RandomResize, GivesThePixelsOfOpenCv) {
    std::mt19937 random(7);
    std::uniform_int_distribution<int> side(1, 160);
    for (int round = 0; round < 150; ++round) {
        cv::Mat image(side(random), side(random), CV_8UC3), expected;
        cv::RNG(static_cast<std::uint64_t>(round)).fill(image, cv::RNG::UNIFORM, 0, 256);
        const cv::Size size(side(random), side(random));
        cv::resize(image, expected, size, 0, 0, cv::INTER_LINEAR);
        EXPECT_EQ(cv::norm(expected, resized(image, size), cv::NORM_INF), 0)
            << image.size() << " -> " << size;
    }
}

}  // namespace
}  // namespace raudo
