/// ONNX Runtime on the CPU, from ONNX files.
#include <onnxruntime_cxx_api.h>

#include <array>

#include "backend.hpp"

namespace raudo {
namespace {

constexpr std::array<const char*, 1> input_names = {"images"};

class OnnxRuntimeEngine : public Engine {
public:
    OnnxRuntimeEngine(const std::filesystem::path& file, Spec spec, const LoadOptions& options)
        : spec_(std::move(spec)), session_(environment_, file.c_str(), settings(options)) {
        check_session();
        for (const std::string& name : output_names_) {
            name_pointers_.push_back(name.c_str());
        }
    }

    std::unique_ptr<Request> make_request() override;

    std::vector<Ort::Value> run(const Ort::Value& images) {
        return session_.Run(Ort::RunOptions{nullptr}, input_names.data(), &images, 1,
                            name_pointers_.data(), name_pointers_.size());
    }

    const Spec& spec() const { return spec_; }

private:
    static Ort::SessionOptions settings(const LoadOptions& options) {
        Ort::SessionOptions found;
        found.SetIntraOpNumThreads(std::max(1, options.threads / options.streams));
        found.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
        return found;
    }

    void check_session() {
        const Ort::AllocatorWithDefaultOptions allocator;
        if (session_.GetInputCount() != 1 ||
            std::string(session_.GetInputNameAllocated(0, allocator).get()) != input_names[0]) {
            throw breaks_spec("it does not take one tensor named images");
        }
        const Ort::TypeInfo input = session_.GetInputTypeInfo(0);
        const auto images = input.GetTensorTypeAndShapeInfo();
        if (images.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) {
            throw breaks_spec("it does not take bytes");
        }
        std::vector<Shape> outputs;
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) {
            output_names_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
            const Ort::TypeInfo output = session_.GetOutputTypeInfo(i);
            const auto tensor = output.GetTensorTypeAndShapeInfo();
            if (i < 2 && tensor.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
                throw breaks_spec("its boxes or scores are not float32");
            }
            outputs.push_back(tensor.GetShape());
        }
        check_shapes(spec_, images.GetShape(), outputs);
    }

    Spec spec_;
    Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "raudo"};
    Ort::Session session_;
    std::vector<std::string> output_names_;
    std::vector<const char*> name_pointers_;
};

class OnnxRuntimeRequest : public Request {
public:
    explicit OnnxRuntimeRequest(OnnxRuntimeEngine& engine) : engine_(engine) {
        const Spec& spec = engine.spec();
        const std::array<std::int64_t, 4> shape = {1, spec.height, spec.width, 3};
        pixels_.resize(static_cast<std::size_t>(spec.height) *
                       static_cast<std::size_t>(spec.width) * 3);
        images_ = Ort::Value::CreateTensor<std::uint8_t>(
            Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault), pixels_.data(),
            pixels_.size(), shape.data(), shape.size());
    }

    void prepare(const Image& image, const Fit& placed) override {
        letterbox(image, placed, engine_.spec(), pixels_.data());
    }

    Outputs run() override {
        values_ = engine_.run(images_);
        Outputs outputs;
        outputs.boxes = values_[0].GetTensorData<float>();
        outputs.scores = values_[1].GetTensorData<float>();
        outputs.rows =
            static_cast<std::size_t>(values_[0].GetTensorTypeAndShapeInfo().GetShape().at(1));
        if (engine_.spec().output == Output::topk) {
            const bool wide = values_[2].GetTensorTypeAndShapeInfo().GetElementType() ==
                              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
            outputs.labels64 = wide ? values_[2].GetTensorData<std::int64_t>() : nullptr;
            outputs.labels32 = wide ? nullptr : values_[2].GetTensorData<std::int32_t>();
        }
        return outputs;
    }

private:
    OnnxRuntimeEngine& engine_;
    std::vector<std::uint8_t> pixels_;
    Ort::Value images_{nullptr};
    std::vector<Ort::Value> values_;
};

std::unique_ptr<Request> OnnxRuntimeEngine::make_request() {
    return std::make_unique<OnnxRuntimeRequest>(*this);
}

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path& file,
                                         const Manifest& manifest, const LoadOptions& options) {
    if (!options.device.empty() && options.device != "CPU") {
        throw Error("ONNX Runtime has no device " + options.device + " here", "it has: CPU");
    }
    try {
        return std::make_unique<OnnxRuntimeEngine>(file, manifest.spec, options);
    } catch (const Ort::Exception& error) {
        throw does_not_load(file, error.what());
    }
}

}  // namespace raudo
