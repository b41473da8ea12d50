#include "manifest.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "raudo/detector.hpp"
#include "sha256.hpp"

namespace raudo {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t max_bytes = 16 << 20;
constexpr auto export_again = "make the engine again with 'raudo export'";

[[noreturn]] void refuse(const std::string& field, const std::string& problem) {
    throw Error("not a manifest that this program reads: " + field + ": " + problem, export_again);
}

/// A JSON object and the name it has in messages.
class Fields {
public:
    Fields(const Json& object, std::string name) : object_(object), name_(std::move(name)) {
        if (!object.is_object()) {
            refuse(name_, "not an object");
        }
    }

    const Json* find(const char* key) const {
        const auto found = object_.find(key);
        return found == object_.end() ? nullptr : &*found;
    }

    const Json& at(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) {
            refuse(path(key), "missing");
        }
        return *value;
    }

    std::string text(const char* key) const {
        const Json& value = at(key);
        if (!value.is_string()) {
            refuse(path(key), "not a text");
        }
        return value.get<std::string>();
    }

    int whole(const char* key, int low, int high) const {
        const Json& value = at(key);
        if (!value.is_number_integer() || value < low || value > high) {
            refuse(path(key), "not a whole number from " + std::to_string(low) + " to " +
                                  std::to_string(high));
        }
        return value.get<int>();
    }

    double share(const char* key) const {
        const Json& value = at(key);
        if (!value.is_number() || value < 0 || value > 1) {
            refuse(path(key), "not a number from 0 to 1");
        }
        return value.get<double>();
    }

    template <typename Choice>
    Choice choice(const char* key,
                  std::initializer_list<std::pair<const char*, Choice>> choices) const {
        const std::string word = text(key);
        for (const auto& [name, value] : choices) {
            if (word == name) {
                return value;
            }
        }
        refuse(path(key), "unknown word");
    }

    /// Values that are text, by key; the others are of no use here.
    std::map<std::string, std::string> texts() const {
        std::map<std::string, std::string> found;
        for (const auto& [key, value] : object_.items()) {
            if (value.is_string()) {
                found.emplace(key, value.get<std::string>());
            }
        }
        return found;
    }

    void allow(std::initializer_list<std::string_view> known) const {
        for (const auto& [key, value] : object_.items()) {
            if (std::find(known.begin(), known.end(), key) == known.end()) {
                refuse(name_, "a field that this version does not know");
            }
        }
    }

    std::string path(const char* key) const { return name_.empty() ? key : name_ + "." + key; }

private:
    const Json& object_;
    std::string name_;
};

Letterbox parse_letterbox(const Json& json) {
    const Fields fields(json, "spec.letterbox");
    fields.allow({"placement", "rounding", "fill"});
    Letterbox rule;
    if (fields.find("placement") != nullptr) {
        rule.placement = fields.choice<Placement>("placement", {{"center", Placement::center},
                                                                {"top_left", Placement::top_left},
                                                                {"stretch", Placement::stretch}});
    }
    if (fields.find("rounding") != nullptr) {
        rule.rounding = fields.choice<Rounding>(
            "rounding", {{"round", Rounding::round}, {"floor", Rounding::floor}});
    }
    if (fields.find("fill") != nullptr) {
        rule.fill = fields.whole("fill", 0, 255);
    }
    return rule;
}

std::vector<std::string> parse_names(const Json& json, const char* field, std::size_t least,
                                     std::size_t most) {
    if (!json.is_array() || json.size() < least || json.size() > most) {
        refuse(field, "not a list of " + std::to_string(least) + " to " + std::to_string(most) +
                          " names");
    }
    std::vector<std::string> names;
    names.reserve(json.size());
    for (const Json& name : json) {
        if (!name.is_string()) {
            refuse(field, "a name is not a text");
        }
        names.push_back(name.get<std::string>());
    }
    return names;
}

Spec parse_spec(const Json& json) {
    const Fields fields(json, "spec");
    fields.allow({"family", "height", "width", "classes", "letterbox", "output", "nms_iou"});
    Spec spec;
    spec.height = fields.whole("height", 1, max_side);
    spec.width = fields.whole("width", 1, max_side);
    spec.classes = parse_names(fields.at("classes"), "spec.classes", 1, max_classes);
    if (const Json* rule = fields.find("letterbox")) {
        spec.letterbox = parse_letterbox(*rule);
    }
    if (fields.find("output") != nullptr) {
        spec.output =
            fields.choice<Output>("output", {{"dense", Output::dense}, {"topk", Output::topk}});
    }
    if (fields.find("nms_iou") != nullptr) {
        spec.nms_iou = fields.share("nms_iou");
    }
    return spec;
}

std::string read_text(const std::filesystem::path& file) {
    std::error_code failed;
    const auto size = std::filesystem::file_size(file, failed);
    if (failed || size > max_bytes) {
        throw Error("cannot read " + file.string() + " as a manifest", export_again);
    }
    std::ifstream stream(file, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
}

Manifest parse_beside(const std::filesystem::path& beside) {
    const std::string text = read_text(beside);
    try {
        return parse_manifest(text);
    } catch (const Error& error) {
        throw Error(beside.string() + " is " + error.what(), error.hint());
    }
}

void check_files(const std::filesystem::path& engine, const std::filesystem::path& beside,
                 const Manifest& manifest) {
    if (manifest.files_sha256.count(engine.filename().string()) == 0) {
        throw Error(beside.filename().string() + " does not describe " + engine.string(),
                    "engine and manifest keep the names that 'raudo export' gave them");
    }
    for (const auto& [name, digest] : manifest.files_sha256) {
        const bool plain = std::filesystem::path(name).filename() == name;
        if (!plain || sha256(engine.parent_path() / name) != digest) {
            throw Error(
                "'" + name + "' is not the file that " + beside.string() + " describes",
                "it is damaged, missing or was replaced; make it again with 'raudo export'");
        }
    }
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) {
        refuse("file", "not JSON");
    }
    const Fields fields(json, "");
    Manifest manifest;
    if (fields.find("manifest_version") != nullptr) {
        fields.whole("manifest_version", 1, 1);
    }
    manifest.backend = fields.text("backend");
    manifest.precision = fields.text("precision");
    manifest.source_sha256 = fields.text("source_sha256");
    manifest.spec = parse_spec(fields.at("spec"));
    const Fields files(fields.at("files_sha256"), "files_sha256");
    manifest.files_sha256 = files.texts();
    if (const Json* options = fields.find("options")) {
        manifest.options = Fields(*options, "options").texts();
    }
    if (const Json* rectangles = fields.find("rectangles")) {
        manifest.rectangles = parse_names(*rectangles, "rectangles", 0, max_rectangles);
    }
    if (const Json* machine = fields.find("machine")) {
        manifest.machine = Fields(*machine, "machine").texts();
    }
    return manifest;
}

Manifest read_manifest(const std::filesystem::path& engine) {
    if (!std::filesystem::is_regular_file(engine)) {
        throw Error("no such engine file: " + engine.string(), "check the path");
    }
    const std::filesystem::path beside = engine.string() + ".json";
    if (!std::filesystem::is_regular_file(beside)) {
        throw Error(
            engine.string() + " has no manifest " + beside.filename().string() + " beside it",
            "copy it along with the engine, or make both with 'raudo export'");
    }
    Manifest manifest = parse_beside(beside);
    check_files(engine, beside, manifest);
    return manifest;
}

}  // namespace raudo
