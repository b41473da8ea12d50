/// The C++ twin of `select` and `nms` in `raudo/detector.py`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "manifest.hpp"
#include "raudo/detector.hpp"

namespace raudo {

/// Raw outputs of an engine for one image; the memory is the engine's.
struct Outputs {
    /// [rows, 4], xyxy in pixels of the engine's input.
    const float* boxes = nullptr;
    /// [rows, classes] of a dense engine, [rows] of a top-k engine.
    const float* scores = nullptr;
    /// [rows] of a top-k engine, of either type; null otherwise.
    const std::int64_t* labels64 = nullptr;
    const std::int32_t* labels32 = nullptr;
    std::size_t rows = 0;
};

/// Which of an engine's outputs become detections.
struct Selection {
    double confidence = 0.25;
    double iou = 0.7;
    std::size_t limit = 300;
    /// One flag for each class; empty keeps all.
    std::vector<bool> wanted;
};

/// Most candidates that NMS looks at, best first.
constexpr std::size_t candidate_limit = 30'000;

/// Chooses the detections of one image, in pixels of the engine's input.
///
/// Candidates are what scores at least the confidence, ordered by score, and among equal scores by
/// anchor. Class-wise greedy NMS chooses among those of a dense engine; the best of an NMS-free
/// engine are taken as they are.
std::vector<Detection> select(const Outputs& outputs, const Spec& spec, const Selection& selection);

/// Greedy non-maximum suppression within each class; candidates come best score first.
///
/// A box is dropped if shared > iou * (area + area - shared), all float32: two boxes without area
/// never drop each other.
std::vector<Detection> nms(const std::vector<Detection>& candidates, double iou, std::size_t limit);

}  // namespace raudo
