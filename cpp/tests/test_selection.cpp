#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "selection.hpp"

namespace raudo {
namespace {

Spec spec_of(std::size_t classes, Output output = Output::dense) {
    Spec spec;
    spec.height = spec.width = 64;
    spec.classes.assign(classes, "x");
    spec.output = output;
    return spec;
}

/// The textbook NMS, one box at a time, that `nms` is held to.
std::vector<Detection> plain_nms(std::vector<Detection> left, float iou) {
    std::vector<Detection> kept;
    while (!left.empty()) {
        const Detection best = left.front();
        kept.push_back(best);
        std::vector<Detection> rest;
        for (std::size_t i = 1; i < left.size(); ++i) {
            const auto& a = best.box;
            const auto& b = left[i].box;
            const float w = std::max(0.F, std::min(a[2], b[2]) - std::max(a[0], b[0]));
            const float h = std::max(0.F, std::min(a[3], b[3]) - std::max(a[1], b[1]));
            const float shared = w * h;
            const float both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
            if (best.label != left[i].label || shared <= iou * (both - shared)) {
                rest.push_back(left[i]);
            }
        }
        left = rest;
    }
    return kept;
}

bool same(const std::vector<Detection>& a, const std::vector<Detection>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
        return x.box == y.box && x.score == y.score && x.label == y.label;
    });
}

TEST(Nms, IsTheTextbookOne) {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> place(0, 50), side(1, 30);
    for (int round = 0; round < 50; ++round) {
        std::vector<Detection> boxes;
        for (int i = 0; i < 60; ++i) {
            const float x = place(random), y = place(random);
            boxes.push_back({{x, y, x + side(random), y + side(random)},
                             1 - 0.01F * static_cast<float>(i),
                             i % 3});
        }
        EXPECT_TRUE(same(nms(boxes, 0.5, 1000), plain_nms(boxes, 0.5F)));
    }
}

TEST(Nms, KeepsEqualBoxesOfTwoClassesAndBoxesWithoutArea) {
    const std::vector<Detection> boxes = {{{0, 0, 9, 9}, 0.9F, 0},
                                          {{0, 0, 9, 9}, 0.8F, 1},
                                          {{0, 0, 9, 9}, 0.7F, 0},
                                          {{5, 5, 5, 5}, 0.6F, 2},
                                          {{5, 5, 5, 5}, 0.5F, 2}};
    EXPECT_EQ(nms(boxes, 0.5, 10).size(), 4U);
    EXPECT_EQ(nms(boxes, 0.5, 2).size(), 2U);
}

TEST(Nms, KeepsAnOverlapThatEqualsTheThreshold) {
    const std::vector<Detection> boxes = {{{0, 0, 4, 4}, 0.9F, 0}, {{0, 0, 4, 2}, 0.8F, 0}};
    EXPECT_EQ(nms(boxes, 0.5, 10).size(), 2U);
    EXPECT_EQ(nms(boxes, 0.49, 10).size(), 1U);
}

TEST(Select, OrdersByScoreThenAnchorAndTakesTheFirstOfEqualClasses) {
    const std::vector<float> boxes = {0, 0, 1, 1, 10, 10, 11, 11, 20, 20, 21, 21};
    const std::vector<float> scores = {0.5F, 0.5F, 0.1F, 0.9F, 0.5F, 0.2F};
    Outputs outputs;
    outputs.boxes = boxes.data();
    outputs.scores = scores.data();
    outputs.rows = 3;
    const auto found = select(outputs, spec_of(2), {});
    ASSERT_EQ(found.size(), 3U);
    EXPECT_EQ(found[0].label, 1);
    EXPECT_EQ(found[1].box[0], 0);
    EXPECT_EQ(found[1].label, 0);
    EXPECT_EQ(found[2].box[0], 20);
}

TEST(Select, KeepsAScoreThatEqualsTheConfidenceAndWantedClassesAlone) {
    const std::vector<float> boxes(8, 1);
    const std::vector<float> scores = {0.25F, 0, 0, 0.26F};
    Outputs outputs;
    outputs.boxes = boxes.data();
    outputs.scores = scores.data();
    outputs.rows = 2;
    EXPECT_EQ(select(outputs, spec_of(2), {}).size(), 2U);
    Selection one;
    one.wanted = {true, false};
    const auto found = select(outputs, spec_of(2), one);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].label, 0);
}

TEST(Select, TakesTheBestOfAnNmsFreeEngine) {
    const std::vector<float> boxes(16, 1);
    const std::vector<float> scores = {0.3F, 0.9F, 0.1F, 0.5F};
    const std::vector<std::int64_t> wide = {0, 1, 1, 7};
    const std::vector<std::int32_t> narrow = {0, 1, 1, -1};
    Outputs outputs;
    outputs.boxes = boxes.data();
    outputs.scores = scores.data();
    outputs.labels64 = wide.data();
    outputs.rows = 4;
    auto found = select(outputs, spec_of(2, Output::topk), {});
    ASSERT_EQ(found.size(), 2U);  // 7 is no class
    EXPECT_EQ(found[0].score, 0.9F);
    outputs.labels64 = nullptr;
    outputs.labels32 = narrow.data();
    Selection one;
    one.limit = 1;
    EXPECT_EQ(select(outputs, spec_of(2, Output::topk), one).size(), 1U);
}

}  // namespace
}  // namespace raudo
