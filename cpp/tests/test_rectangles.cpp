#include <gtest/gtest.h>

#include "rectangles.hpp"

namespace raudo {
namespace {

std::vector<Spec> specs_of(std::initializer_list<std::pair<int, int>> sizes) {
    std::vector<Spec> specs;
    for (const auto& [height, width] : sizes) {
        Spec spec;
        spec.height = height;
        spec.width = width;
        specs.push_back(spec);
    }
    return specs;
}

TEST(Rectangles, AnImageKeepsItsScaleInTheSmallest) {
    const auto specs = specs_of({{64, 64}, {32, 64}, {64, 32}, {48, 64}});
    EXPECT_EQ(smallest(90, 200, specs), 1U);
    EXPECT_EQ(smallest(200, 90, specs), 2U);
    EXPECT_EQ(smallest(140, 200, specs), 3U);
    EXPECT_EQ(smallest(200, 200, specs), 0U);
}

TEST(Rectangles, TheFirstOfEqualsIsTaken) {
    EXPECT_EQ(smallest(10, 10, specs_of({{64, 64}, {64, 64}})), 0U);
}

TEST(Rectangles, OneOfALargerScaleGoesBeforeASmallerOne) {
    EXPECT_EQ(smallest(100, 100, specs_of({{32, 32}, {64, 64}})), 1U);
}

}  // namespace
}  // namespace raudo
