#include <gtest/gtest.h>

#include "backends/backend.hpp"

namespace raudo {
namespace {

Spec spec_of(Output output) {
    Spec spec;
    spec.height = 48;
    spec.width = 64;
    spec.classes = {"a", "b", "c"};
    spec.output = output;
    return spec;
}

TEST(Shapes, FitTheContract) {
    const Shape images = {1, 48, 64, 3};
    EXPECT_NO_THROW(check_shapes(spec_of(Output::dense), images, {{1, 9, 4}, {1, 9, 3}}));
    EXPECT_NO_THROW(
        check_shapes(spec_of(Output::dense), {-1, 48, 64, 3}, {{-1, -1, 4}, {-1, -1, 3}}));
    EXPECT_NO_THROW(check_shapes(spec_of(Output::topk), images, {{1, 9, 4}, {1, 9}, {1, 9}}));
}

TEST(Shapes, AreRefused) {
    const Spec dense = spec_of(Output::dense), topk = spec_of(Output::topk);
    const Shape images = {1, 48, 64, 3};
    EXPECT_THROW(check_shapes(dense, {1, 64, 64, 3}, {{1, 9, 4}, {1, 9, 3}}), Error);
    EXPECT_THROW(check_shapes(dense, {1, 3, 48, 64}, {{1, 9, 4}, {1, 9, 3}}), Error);
    EXPECT_THROW(check_shapes(dense, {2, 48, 64, 3}, {{1, 9, 4}, {1, 9, 3}}), Error);
    EXPECT_THROW(check_shapes(dense, images, {{1, 9, 4}, {1, 9, 2}}), Error);
    EXPECT_THROW(check_shapes(dense, images, {{1, 9, 4}, {1, 8, 3}}), Error);
    EXPECT_THROW(check_shapes(dense, images, {{1, 9, 4}, {1, 9}, {1, 9}}), Error);
    EXPECT_THROW(check_shapes(dense, images, {{}, {}}), Error);
    EXPECT_THROW(check_shapes(dense, images, {}), Error);
    EXPECT_THROW(check_shapes(topk, images, {{1, 9, 4}, {1, 9, 3}}), Error);
    EXPECT_THROW(check_shapes(topk, images, {{1, 9, 4}, {1, 9}, {1, 8}}), Error);
}

TEST(Precision, IsTheEnginesOwnOrRefused) {
    const std::vector<std::string> able = {"FP32", "INT8", "BF16"};
    for (const char* precision : {"fp32", "bf16"}) {
        EXPECT_NO_THROW(check_precision("model.xml", precision, "CPU", able));
    }
    try {
        check_precision("model.xml", "fp16", "CPU", able);
        FAIL();
    } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "model.xml computes in FP16, and this CPU does not");
    }
}

TEST(Failure, IsOneLine) {
    const Error error = does_not_load("m.xml", "Exception from x.cpp:\n  why it failed\n\n");
    EXPECT_STREQ(error.what(), "m.xml does not load:   why it failed");
}

}  // namespace
}  // namespace raudo
