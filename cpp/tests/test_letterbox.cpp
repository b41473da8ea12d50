#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "letterbox.hpp"

namespace raudo {
namespace {

Spec square(int side, Letterbox rule = {}) {
    Spec spec;
    spec.height = spec.width = side;
    spec.classes = {"a"};
    spec.letterbox = rule;
    return spec;
}

// The expected numbers are those that raudo.images.fit gives in Python.
TEST(Fit, CentersAndRounds) {
    const Fit placed = fit(540, 960, square(416));
    EXPECT_EQ(placed.width, 416);
    EXPECT_EQ(placed.height, 234);
    EXPECT_EQ(placed.left, 0);
    EXPECT_EQ(placed.top, 91);
}

TEST(Fit, RoundsHalfToEven) {
    EXPECT_EQ(fit(5, 8, square(4)).height, 2);  // 2.5
    EXPECT_EQ(fit(7, 8, square(4)).height, 4);  // 3.5
}

TEST(Fit, FloorsAtTheTopLeft) {
    const Fit placed = fit(7, 8, square(4, {Placement::top_left, Rounding::floor, 114}));
    EXPECT_EQ(placed.height, 3);
    EXPECT_EQ(placed.top, 0);
}

TEST(Fit, LeavesOnePixelOfAThinImage) {
    EXPECT_EQ(fit(1, 10'000, square(64)).height, 1);
}

TEST(Fit, StretchesEachSide) {
    const Fit placed = fit(10, 40, square(20, {Placement::stretch, Rounding::round, 0}));
    EXPECT_DOUBLE_EQ(placed.scale_x, 0.5);
    EXPECT_DOUBLE_EQ(placed.scale_y, 2.0);
}

TEST(Fit, MapsBoxesBackAndClips) {
    const Fit placed = fit(540, 960, square(416));
    const std::array<float, 4> box = {-5, 91, 208, 1000};
    const std::array<float, 4> expected = {0, 0, 480, 540};
    EXPECT_EQ(placed.to_image(box.data()), expected);
}

TEST(Letterbox, PadsWithTheFill) {
    const Spec spec = square(8);
    const std::vector<std::uint8_t> white(8 * 4 * 3, 255);
    std::vector<std::uint8_t> input(8 * 8 * 3, 7);
    const Image image{white.data(), 4, 8, 0};
    letterbox(image, fit(4, 8, spec), spec, input.data());
    for (std::size_t row = 0; row < 8; ++row) {
        EXPECT_EQ(input[row * 24], row < 2 || row >= 6 ? 114 : 255) << row;
        EXPECT_EQ(input[row * 24 + 23], row < 2 || row >= 6 ? 114 : 255) << row;
    }
}

TEST(Letterbox, ReadsRowsWithAGap) {
    const Spec spec = square(2);
    const std::vector<std::uint8_t> rows = {1, 2, 3, 4, 5, 6, 99, 99, 7, 8, 9, 10, 11, 12, 99, 99};
    std::vector<std::uint8_t> input(12);
    letterbox({rows.data(), 2, 2, 8}, fit(2, 2, spec), spec, input.data());
    const std::vector<std::uint8_t> expected = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    EXPECT_EQ(input, expected);
}

TEST(Check, RefusesWhatIsNoImage) {
    const std::uint8_t pixel = 0;
    EXPECT_THROW(check({nullptr, 2, 2, 0}), Error);
    EXPECT_THROW(check({&pixel, 0, 2, 0}), Error);
    EXPECT_THROW(check({&pixel, 2, -1, 0}), Error);
    EXPECT_THROW(check({&pixel, 2, 2, 5}), Error);
    EXPECT_NO_THROW(check({&pixel, 1, 1, 3}));
}

}  // namespace
}  // namespace raudo
