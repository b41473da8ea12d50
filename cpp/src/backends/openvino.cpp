/// OpenVINO, from IR files: FP32, BF16 and INT8 on its CPU plug-in, and its other devices.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <openvino/frontend/manager.hpp>
#include <openvino/openvino.hpp>
#include <optional>
#include <random>
#include <utility>

#include "backend.hpp"

namespace raudo {
namespace {

Shape shape_of(const ov::PartialShape& partial) {
    Shape shape;
    for (const ov::Dimension& side : partial) {
        shape.push_back(side.is_static() ? side.get_length() : -1);
    }
    return shape;
}

/// Checks what a model, or a compiled model, takes and gives.
template <typename Model>
void check_model(const Model& model, const Spec& spec) {
    const auto shape = [](const auto& port) {
        const ov::PartialShape& partial = port.get_partial_shape();
        return partial.rank().is_static() ? shape_of(partial) : Shape{};
    };
    std::vector<Shape> outputs;
    for (const auto& port : model.outputs()) {
        outputs.push_back(shape(port));
    }
    if (model.inputs().size() != 1 || model.input().get_element_type() != ov::element::u8) {
        throw breaks_spec("it does not take one tensor of bytes");
    }
    check_shapes(spec, shape(model.input()), outputs);
    for (std::size_t i = 0; i < 2; ++i) {
        if (model.output(i).get_element_type() != ov::element::f32) {
            throw breaks_spec("its boxes or scores are not float32");
        }
    }
}

class OpenVinoRequest : public Request {
public:
    OpenVinoRequest(ov::InferRequest request, const Spec& spec)
        : request_(std::move(request)), spec_(spec) {}

    void prepare(const Image& image, const Fit& placed) override {
        letterbox(image, placed, spec_, request_.get_input_tensor().data<std::uint8_t>());
    }

    Outputs run() override {
        request_.infer();
        const ov::Tensor boxes = request_.get_output_tensor(0);
        Outputs outputs;
        outputs.boxes = boxes.data<const float>();
        outputs.scores = request_.get_output_tensor(1).data<const float>();
        outputs.rows = boxes.get_shape().at(1);
        if (spec_.output == Output::topk) {
            const ov::Tensor labels = request_.get_output_tensor(2);
            if (labels.get_element_type() == ov::element::i64) {
                outputs.labels64 = labels.data<const std::int64_t>();
            } else {
                outputs.labels32 = labels.data<const std::int32_t>();
            }
        }
        return outputs;
    }

private:
    ov::InferRequest request_;
    const Spec& spec_;
};

class OpenVinoEngine : public Engine {
public:
    OpenVinoEngine(ov::CompiledModel compiled, Spec spec)
        : compiled_(std::move(compiled)), spec_(std::move(spec)) {}

    std::unique_ptr<Request> make_request() override {
        return std::make_unique<OpenVinoRequest>(compiled_.create_infer_request(), spec_);
    }

private:
    ov::CompiledModel compiled_;
    Spec spec_;
};

ov::AnyMap properties(const Manifest& manifest, const LoadOptions& options) {
    ov::AnyMap found = {ov::num_streams(options.streams)};
    if (options.device.empty() || options.device == "CPU") {
        found.insert(ov::inference_num_threads(options.threads));
    }
    const auto rest = manifest.options.find("rest");
    if (rest != manifest.options.end()) {
        const bool bf16 = rest->second == "bf16";
        found.insert(ov::hint::inference_precision(bf16 ? ov::element::bf16 : ov::element::f32));
    }
    return found;
}

/// What was compiled of an engine, kept as a file. A whole one starts without the engine being read;
/// OpenVINO's own `cache_dir` reads it each time, to look for its compiled form.
class Kept {
public:
    /// The file's name has all that a compiled model depends on.
    Kept(ov::Core& core, const Manifest& manifest, const LoadOptions& options,
         const std::string& device, const ov::AnyMap& settings)
        : core_(core), device_(device), settings_(settings) {
        if (options.cache.empty()) {
            return;
        }
        std::string name;
        for (const auto& [file, digest] : manifest.files_sha256) {
            name += digest.substr(0, 16);
        }
        name += std::string("-") + ov::get_openvino_version().buildNumber + "-" +
                core.get_property(device, ov::device::full_name);
        for (const auto& [key, value] : settings) {
            name += "-" + value.as<std::string>();
        }
        std::replace_if(
            name.begin(), name.end(),
            [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '.'; }, '_');
        file_ = std::filesystem::path(options.cache) / (name + ".blob");
    }

    /// Returns the compiled model; none where nothing whole is kept.
    std::optional<ov::CompiledModel> read() {
        std::ifstream stream(file_, std::ios::binary);
        try {
            return stream ? std::optional(core_.import_model(stream, device_, settings_))
                          : std::nullopt;
        } catch (const ov::Exception&) {
            return std::nullopt;
        }
    }

    /// Keeps a compiled model, where there is room for it and its device can.
    void write(ov::CompiledModel& compiled) {
        if (file_.empty()) {
            return;
        }
        std::error_code failed;
        std::filesystem::create_directories(file_.parent_path(), failed);
        const std::filesystem::path draft =
            file_.string() + "." + std::to_string(std::random_device{}());
        try {
            std::ofstream stream(draft, std::ios::binary);
            compiled.export_model(stream);
            if (stream.flush()) {
                std::filesystem::rename(draft, file_, failed);
            }
        } catch (const ov::Exception&) {
            file_.clear();  // this device keeps nothing
        }
        std::filesystem::remove(draft, failed);
    }

private:
    ov::Core& core_;
    const std::string& device_;
    const ov::AnyMap& settings_;
    std::filesystem::path file_;
};

/// Reads an IR file. `Core::read_model` would try the readers of all other formats on what is none,
/// and load TensorFlow's, which writes to the terminal.
std::shared_ptr<ov::Model> read(const std::filesystem::path& file) {
    const auto reader = ov::frontend::FrontEndManager().load_by_framework("ir");
    return reader->convert(reader->load(file.string()));
}

ov::CompiledModel compile(ov::Core& core, const std::filesystem::path& file, const Spec& spec,
                          const std::string& device, const ov::AnyMap& settings) {
    const auto model = read(file);
    check_model(*model, spec);
    model->reshape(ov::PartialShape{1, spec.height, spec.width, 3});
    return core.compile_model(model, device, settings);
}

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::filesystem::path& file, const Manifest& manifest,
                                      const LoadOptions& options) {
    const Spec& spec = manifest.spec;
    const std::string device = options.device.empty() ? "CPU" : options.device;
    const ov::AnyMap settings = properties(manifest, options);
    try {
        ov::Core core;
        Kept kept(core, manifest, options, device, settings);
        auto compiled = kept.read();
        if (compiled) {
            check_model(*compiled, spec);
        } else {
            compiled = compile(core, file, spec, device, settings);
            kept.write(*compiled);
        }
        return std::make_unique<OpenVinoEngine>(*std::move(compiled), spec);
    } catch (const ov::Exception& error) {
        throw does_not_load(file, error.what());
    }
}

}  // namespace raudo
