#include "backend.hpp"

#include <algorithm>
#include <cctype>

namespace raudo {

#ifdef RAUDO_WITH_OPENVINO
std::unique_ptr<Engine> open_openvino(const std::filesystem::path&, const Manifest&,
                                      const LoadOptions&);
#endif
#ifdef RAUDO_WITH_ONNXRUNTIME
std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path&, const Manifest&,
                                         const LoadOptions&);
#endif
#ifdef RAUDO_WITH_TENSORRT
std::unique_ptr<Engine> open_tensorrt(const std::filesystem::path&, const Manifest&,
                                      const LoadOptions&);
#endif

const std::vector<Backend>& registry() {
    static const std::vector<Backend> found = {
#ifdef RAUDO_WITH_TENSORRT
        {"tensorrt", ".engine", open_tensorrt},
#endif
#ifdef RAUDO_WITH_OPENVINO
        {"openvino", ".xml", open_openvino},
#endif
#ifdef RAUDO_WITH_ONNXRUNTIME
        {"onnxruntime", ".onnx", open_onnxruntime},
#endif
    };
    return found;
}

namespace {

std::string text(const Shape& shape) {
    std::string joined = "[";
    for (const std::int64_t side : shape) {
        joined += (joined.size() > 1 ? ", " : "") + (side < 0 ? "?" : std::to_string(side));
    }
    return joined + "]";
}

bool fits(const Shape& shape, const Shape& expected) {
    return std::equal(
        shape.begin(), shape.end(), expected.begin(), expected.end(),
        [](auto side, auto wanted) { return side < 0 || wanted < 0 || side == wanted; });
}

}  // namespace

void check_shapes(const Spec& spec, const Shape& images, const std::vector<Shape>& outputs) {
    const Shape expected = {1, spec.height, spec.width, 3};
    if (!fits(images, expected)) {
        throw breaks_spec("it takes images " + text(images) + ", not " + text(expected));
    }
    const bool dense = spec.output == Output::dense;
    if (outputs.size() != (dense ? 2 : 3)) {
        throw breaks_spec("it has " + std::to_string(outputs.size()) + " outputs");
    }
    const std::int64_t rows = outputs[0].size() == 3 ? outputs[0][1] : -1;
    const auto classes = static_cast<std::int64_t>(spec.classes.size());
    const Shape scores = dense ? Shape{1, rows, classes} : Shape{1, rows};
    const bool same = fits(outputs[0], {1, rows, 4}) && fits(outputs[1], scores) &&
                      (dense || fits(outputs[2], scores));
    if (!same) {
        throw breaks_spec("it gives boxes " + text(outputs[0]) + ", scores " + text(outputs[1]));
    }
}

void check_precision(const std::filesystem::path& file, const std::string& precision,
                     const std::string& device, const std::vector<std::string>& able) {
    std::string name = precision;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (std::find(able.begin(), able.end(), name) == able.end()) {
        throw Error(file.string() + " computes in " + name + ", and this " + device + " does not",
                    "make one for it there with 'raudo export' or 'raudo optimize'");
    }
}

Error does_not_load(const std::filesystem::path& file, const std::string& reason) {
    const auto start = reason.find_last_not_of(" \n");
    const std::string trimmed = reason.substr(0, start == std::string::npos ? 0 : start + 1);
    const auto line = trimmed.rfind('\n');
    return {file.string() + " does not load: " +
                (line == std::string::npos ? trimmed : trimmed.substr(line + 1)),
            "make it again with 'raudo export'"};
}

Error breaks_spec(const std::string& what) {
    return {"the engine breaks its manifest: " + what,
            "the manifest belongs to another file; make the engine again with 'raudo export'"};
}

}  // namespace raudo
