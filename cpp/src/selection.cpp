#include "selection.hpp"

#include <algorithm>

namespace raudo {
namespace {

struct Candidate {
    std::size_t anchor;
    float score;
    std::int64_t label;
};

float area(const Detection& detection) {
    const auto& [left, top, right, bottom] = detection.box;
    return std::max(right - left, 0.0F) * std::max(bottom - top, 0.0F);
}

bool drops(const Detection& better, float better_area, const Detection& worse, float worse_area,
           float iou) {
    const auto& a = better.box;
    const auto& b = worse.box;
    const float width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0F);
    const float height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0F);
    const float shared = width * height;
    return shared > (better_area + worse_area - shared) * iou;
}

/// The best class of each anchor that has one at or above the confidence; the first of equals.
///
/// Almost no anchor has one, so all scores are only compared first, which compilers vectorize.
std::vector<Candidate> dense_candidates(const Outputs& outputs, std::size_t classes,
                                        float confidence) {
    std::vector<Candidate> found;
    const float* row = outputs.scores;
    for (std::size_t anchor = 0; anchor < outputs.rows; ++anchor, row += classes) {
        int hits = 0;
        for (std::size_t label = 0; label < classes; ++label) {
            hits += row[label] >= confidence ? 1 : 0;
        }
        if (hits > 0) {
            const float* best = std::max_element(row, row + classes);
            found.push_back({anchor, *best, best - row});
        }
    }
    return found;
}

std::vector<Candidate> topk_candidates(const Outputs& outputs, float confidence) {
    std::vector<Candidate> found;
    for (std::size_t row = 0; row < outputs.rows; ++row) {
        if (outputs.scores[row] >= confidence) {
            const std::int64_t label =
                outputs.labels64 != nullptr ? outputs.labels64[row] : outputs.labels32[row];
            found.push_back({row, outputs.scores[row], label});
        }
    }
    return found;
}

}  // namespace

std::vector<Detection> select(const Outputs& outputs, const Spec& spec,
                              const Selection& selection) {
    const auto confidence = static_cast<float>(selection.confidence);
    const bool dense = spec.output == Output::dense;
    std::vector<Candidate> candidates =
        dense ? dense_candidates(outputs, spec.classes.size(), confidence)
              : topk_candidates(outputs, confidence);
    const auto classes = static_cast<std::int64_t>(spec.classes.size());
    const auto unwanted = [&](const Candidate& candidate) {
        return candidate.label < 0 || candidate.label >= classes ||
               (!selection.wanted.empty() &&
                !selection.wanted[static_cast<std::size_t>(candidate.label)]);
    };
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), unwanted),
                     candidates.end());
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    const std::size_t most = dense ? candidate_limit : selection.limit;
    candidates.resize(std::min(candidates.size(), most), Candidate{});
    std::vector<Detection> detections;
    detections.reserve(candidates.size());
    for (const Candidate& candidate : candidates) {
        const float* box = outputs.boxes + 4 * candidate.anchor;
        detections.push_back({{box[0], box[1], box[2], box[3]}, candidate.score, candidate.label});
    }
    return dense ? nms(detections, selection.iou, selection.limit) : detections;
}

std::vector<Detection> nms(const std::vector<Detection>& candidates, double iou,
                           std::size_t limit) {
    std::vector<Detection> kept;
    std::vector<float> areas;
    const auto threshold = static_cast<float>(iou);
    for (const Detection& candidate : candidates) {
        const float own = area(candidate);
        bool free = true;
        for (std::size_t i = 0; i < kept.size() && free; ++i) {
            free = kept[i].label != candidate.label ||
                   !drops(kept[i], areas[i], candidate, own, threshold);
        }
        if (free) {
            kept.push_back(candidate);
            areas.push_back(own);
            if (kept.size() == limit) {
                break;
            }
        }
    }
    return kept;
}

}  // namespace raudo
