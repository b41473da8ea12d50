/// OpenVINO, from IR files: FP32, BF16 and INT8 on its CPU plug-in, and its other devices.
#include <openvino/openvino.hpp>
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

Shape shape_of(const ov::Output<ov::Node>& port) {
    const ov::PartialShape& partial = port.get_partial_shape();
    return partial.rank().is_static() ? shape_of(partial) : Shape{};
}

void check_model(ov::Model& model, const Spec& spec) {
    std::vector<Shape> outputs;
    for (const auto& port : model.outputs()) {
        outputs.push_back(shape_of(port));
    }
    if (model.inputs().size() != 1 || model.input().get_element_type() != ov::element::u8) {
        throw breaks_spec("it does not take one tensor of bytes");
    }
    check_shapes(spec, shape_of(model.input()), outputs);
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
    if (!options.cache.empty()) {
        found.insert(ov::cache_dir(options.cache));
    }
    const auto rest = manifest.options.find("rest");
    if (rest != manifest.options.end()) {
        const bool bf16 = rest->second == "bf16";
        found.insert(ov::hint::inference_precision(bf16 ? ov::element::bf16 : ov::element::f32));
    }
    return found;
}

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::filesystem::path& file, const Manifest& manifest,
                                      const LoadOptions& options) {
    const Spec& spec = manifest.spec;
    try {
        ov::Core core;
        const auto model = core.read_model(file.string());
        check_model(*model, spec);
        model->reshape(ov::PartialShape{1, spec.height, spec.width, 3});
        const std::string device = options.device.empty() ? "CPU" : options.device;
        return std::make_unique<OpenVinoEngine>(
            core.compile_model(model, device, properties(manifest, options)), spec);
    } catch (const ov::Exception& error) {
        throw does_not_load(file, error.what());
    }
}

}  // namespace raudo
