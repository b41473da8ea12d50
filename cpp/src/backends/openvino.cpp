/// OpenVINO, from IR files: FP32, FP16, BF16 and INT8 on its CPU plug-in, and its other devices.
#include <filesystem>
#include <openvino/frontend/manager.hpp>
#include <openvino/openvino.hpp>
#include <optional>
#include <utility>

#include "../kept.hpp"
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

/// The precision of what is not INT8; empty where the engine leaves it to the device.
std::string rest_of(const Manifest& manifest) {
    const auto rest = manifest.options.find("rest");
    return rest == manifest.options.end() ? "" : rest->second;
}

ov::AnyMap properties(const Manifest& manifest, const LoadOptions& options) {
    ov::AnyMap found = {ov::num_streams(options.streams)};
    if (options.device.empty() || options.device == "CPU") {
        found.insert(ov::inference_num_threads(options.threads));
    }
    const std::string rest = rest_of(manifest);
    if (!rest.empty()) {
        found.insert(ov::hint::inference_precision(rest == "bf16"   ? ov::element::bf16
                                                   : rest == "fp16" ? ov::element::f16
                                                                    : ov::element::f32));
    }
    return found;
}

/// What was compiled of an engine, for any number of streams and threads; on CPUs, for all that have
/// the same instructions, which OpenVINO compares. A kept one starts without the engine being read;
/// OpenVINO's own `cache_dir` reads it each time, to look for its compiled form.
Kept kept_of(ov::Core& core, const std::filesystem::path& engine, const Manifest& manifest,
             const LoadOptions& options, const std::string& device) {
    std::string digests;
    for (const auto& [file, digest] : manifest.files_sha256) {
        digests += digest.substr(0, 16);
    }
    const Spec& spec = manifest.spec;
    std::vector<std::string> words = {
        digests, ov::get_openvino_version().buildNumber,
        "1x" + std::to_string(spec.height) + "x" + std::to_string(spec.width), rest_of(manifest)};
    if (device == "CPU") {
        const auto able = core.get_property(device, ov::device::capabilities);
        words.insert(words.end(), able.begin(), able.end());
    } else {
        words.push_back(core.get_property(device, ov::device::full_name));
    }
    return {options.cache, words, engine};
}

/// Returns what was compiled before; none where it was not, or for a CPU that can more than this one.
std::optional<ov::CompiledModel> read_kept(const Kept& kept, ov::Core& core,
                                           const std::string& device, const ov::AnyMap& settings) {
    auto stream = kept.open();
    try {
        return stream ? std::optional(core.import_model(*stream, device, settings)) : std::nullopt;
    } catch (const ov::Exception&) {
        return std::nullopt;
    }
}

void write_kept(const Kept& kept, ov::CompiledModel& compiled) {
    try {
        kept.keep([&](std::ostream& stream) { compiled.export_model(stream); });
    } catch (const ov::Exception&) {
        return;  // this device gives nothing away
    }
}

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
        if (const std::string rest = rest_of(manifest); !rest.empty()) {
            check_precision(file, rest, device, core.get_property(device, ov::device::capabilities));
        }
        const Kept kept = kept_of(core, file, manifest, options, device);
        auto compiled = read_kept(kept, core, device, settings);
        if (compiled) {
            check_model(*compiled, spec);
        } else {
            compiled = compile(core, file, spec, device, settings);
            write_kept(kept, *compiled);
        }
        return std::make_unique<OpenVinoEngine>(*std::move(compiled), spec);
    } catch (const ov::Exception& error) {
        throw does_not_load(file, error.what());
    }
}

}  // namespace raudo
