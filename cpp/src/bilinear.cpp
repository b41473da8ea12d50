#include "bilinear.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace raudo {
namespace {

constexpr float weight_scale = 2048;

std::int32_t weight(float share) {
    return static_cast<std::int32_t>(std::nearbyint(share * weight_scale));
}

/// Returns the pixel left of or above a target pixel's centre, and how far beyond it that lies.
std::pair<int, float> place(int target, double scale) {
    const auto exact = static_cast<float>((target + 0.5) * scale - 0.5);
    const int first = static_cast<int>(std::floor(exact));
    return {first, exact - static_cast<float>(first)};
}

}  // namespace

std::vector<Tap> column_taps(int from, int to) {
    std::vector<Tap> found;
    for (int i = 0; i < to; ++i) {
        auto [first, share] = place(i, static_cast<double>(from) / to);
        if (first < 0 || first >= from - 1) {
            first = first < 0 ? 0 : from - 1;
            share = 0;
        }
        found.push_back({first, std::min(first + 1, from - 1), weight(1 - share), weight(share)});
    }
    return found;
}

std::vector<Tap> row_taps(int from, int to) {
    std::vector<Tap> found;
    for (int i = 0; i < to; ++i) {
        const auto [first, share] = place(i, static_cast<double>(from) / to);
        found.push_back({std::clamp(first, 0, from - 1), std::clamp(first + 1, 0, from - 1),
                         weight(1 - share), weight(share)});
    }
    return found;
}

}  // namespace raudo
