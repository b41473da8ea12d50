/// The manifest beside an engine file: what the engine takes and gives.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace raudo {

constexpr int max_side = 16384;
constexpr std::size_t max_classes = 100'000;
constexpr std::size_t max_rectangles = 64;

enum class Placement { center, top_left, stretch };
enum class Rounding { round, floor };
enum class Output { dense, topk };

/// How an image is fitted into the input rectangle of an engine.
struct Letterbox {
    Placement placement = Placement::center;
    Rounding rounding = Rounding::round;
    int fill = 114;
};

/// What an engine takes and gives.
struct Spec {
    int height = 0;
    int width = 0;
    std::vector<std::string> classes;
    Letterbox letterbox;
    Output output = Output::dense;
    double nms_iou = 0.7;
};

/// The fields of a manifest that running an engine needs.
struct Manifest {
    std::string backend;
    /// The precision that was asked for, and the hash of the model: engines of one network share them.
    std::string precision, source_sha256;
    /// Load options whose value is text.
    std::map<std::string, std::string> options;
    Spec spec;
    std::map<std::string, std::string> files_sha256;
    /// Engine files of the same network for smaller input rectangles, beside it.
    std::vector<std::string> rectangles;
    /// What the engine needs to find again: GPU, driver and so on.
    std::map<std::string, std::string> machine;
};

/// Reads the text of a manifest. Fields that only tell where an engine comes from are not looked
/// at; an unknown field of the spec is refused, for it would change pixels or boxes.
///
/// Throws Error, with the field that is wrong.
Manifest parse_manifest(std::string_view text);

/// Reads the manifest beside an engine file, and checks that it is of this very file.
///
/// Throws Error: a file is missing, or they do not belong together.
Manifest read_manifest(const std::filesystem::path& engine);

}  // namespace raudo
