/// The C++ twin of `raudo/rectangles.py`: several input rectangles for one network.
#pragma once

#include <cstddef>
#include <filesystem>
#include <utility>
#include <vector>

#include "manifest.hpp"

namespace raudo {

/// Returns which spec has the least area of those at which an image has the largest scale of all;
/// the first of equals.
std::size_t smallest(int height, int width, const std::vector<Spec>& specs);

/// Reads the manifests of an engine file and of those that it names for smaller rectangles, each
/// with its file; the engine's own is the first.
///
/// Throws Error: a file is missing, damaged, or of another network.
std::vector<std::pair<std::filesystem::path, Manifest>> read_rectangles(
    const std::filesystem::path& engine);

}  // namespace raudo
