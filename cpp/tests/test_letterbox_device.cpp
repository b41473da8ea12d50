#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "backends/cuda.hpp"
#include "backends/letterbox.cuh"
#include "letterbox.hpp"

namespace raudo {
namespace {

using Bytes = std::vector<std::uint8_t>;

template <typename T>
cuda::DeviceArray<T> on_device(const std::vector<T>& from) {
    auto to = cuda::device_array<T>(from.size());
    cuda::check(
        cudaMemcpy(to.get(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
        "copy to the GPU");
    return to;
}

Bytes by_gpu(const Bytes& pixels, const Fit& placed, const Spec& spec, std::size_t bytes) {
    const auto image = on_device(pixels);
    const auto rows = on_device(row_taps(placed.image_height, placed.height));
    const auto columns = on_device(column_taps(placed.image_width, placed.width));
    const auto input = on_device(Bytes(bytes, 1));
    letterbox_on_device(
        {image.get(), placed.image_width, placed.left, placed.top, placed.width, placed.height,
         rows.get(), columns.get(),
         is_halved(placed.image_height, placed.image_width, placed.height, placed.width),
         static_cast<std::uint8_t>(spec.letterbox.fill), input.get(), spec.width, spec.height},
        nullptr);
    cuda::check(cudaGetLastError(), "start the letterbox");
    Bytes found(bytes);
    cuda::check(cudaMemcpy(found.data(), input.get(), bytes, cudaMemcpyDeviceToHost),
                "copy from the GPU");
    return found;
}

Bytes noise(std::size_t bytes) {
    std::mt19937 random(7);
    Bytes pixels(bytes);
    std::generate(pixels.begin(), pixels.end(),
                  [&] { return static_cast<std::uint8_t>(random()); });
    return pixels;
}

struct Size {
    int height, width;
};

class OnDevice : public testing::TestWithParam<Size> {
protected:
    void SetUp() override {
        int count = 0;
        if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
            GTEST_SKIP() << "NO GPU: the CUDA letterbox goes untested";
        }
    }
};

TEST_P(OnDevice, GivesThePixelsOfTheCpu) {
    const auto [height, width] = GetParam();
    const Bytes pixels = noise(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
    for (const auto placement : {Placement::center, Placement::top_left, Placement::stretch}) {
        Spec spec;
        spec.height = 384;
        spec.width = 640;
        spec.classes = {"a"};
        spec.letterbox.placement = placement;
        const Fit placed = fit(height, width, spec);
        Bytes cpu(static_cast<std::size_t>(spec.height) * static_cast<std::size_t>(spec.width) * 3);
        letterbox({pixels.data(), height, width, 0}, placed, spec, cpu.data());
        const Bytes gpu = by_gpu(pixels, placed, spec, cpu.size());
        int most = 0;
        std::size_t differ = 0;
        for (std::size_t i = 0; i < cpu.size(); ++i) {
            most = std::max(most, std::abs(cpu[i] - gpu[i]));
            differ += cpu[i] != gpu[i] ? 1 : 0;
        }
        EXPECT_EQ(most, 0) << differ << " of " << cpu.size() << " bytes differ";
    }
}

INSTANTIATE_TEST_SUITE_P(Sizes, OnDevice,
                         testing::Values(Size{540, 960}, Size{1080, 1920}, Size{768, 1280},
                                         Size{384, 640}, Size{100, 60}, Size{1, 4000},
                                         Size{3001, 17}));

}  // namespace
}  // namespace raudo
