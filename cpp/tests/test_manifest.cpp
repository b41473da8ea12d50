#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "manifest.hpp"
#include "raudo/detector.hpp"
#include "sha256.hpp"

namespace raudo {
namespace {

namespace fs = std::filesystem;

const std::string abc_digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const std::string files = R"("m.xml": ")" + abc_digest + '"';

std::string manifest(const std::string& spec, const std::string& more = "",
                     const std::string& described = files) {
    return R"({"manifest_version": 1, "backend": "openvino", "precision": "int8",
              "source_sha256": "s", "options": {"rest": "fp32", "n": 2}, "files_sha256": {)" +
           described + R"(}, "spec": )" + spec + more + "}";
}

std::string spec(const std::string& more) {
    return R"({"family": "f", "height": 416, "width": 640, "classes": ["a", "b"])" + more + "}";
}

std::string refusal(const std::string& text) {
    try {
        parse_manifest(text);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(Manifest, ReadsWhatIsThere) {
    const Manifest found = parse_manifest(manifest(spec(
        R"(, "letterbox": {"placement": "top_left", "rounding": "floor", "fill": 0},
           "output": "topk", "nms_iou": 0.5)")));
    EXPECT_EQ(found.backend, "openvino");
    EXPECT_EQ(found.precision, "int8");
    EXPECT_EQ(found.source_sha256, "s");
    EXPECT_TRUE(found.rectangles.empty());
    EXPECT_EQ(found.options.at("rest"), "fp32");
    EXPECT_EQ(found.options.count("n"), 0U);
    EXPECT_EQ(found.spec.height, 416);
    EXPECT_EQ(found.spec.width, 640);
    EXPECT_EQ(found.spec.classes.size(), 2U);
    EXPECT_EQ(found.spec.letterbox.placement, Placement::top_left);
    EXPECT_EQ(found.spec.letterbox.rounding, Rounding::floor);
    EXPECT_EQ(found.spec.letterbox.fill, 0);
    EXPECT_EQ(found.spec.output, Output::topk);
    EXPECT_DOUBLE_EQ(found.spec.nms_iou, 0.5);
}

TEST(Manifest, HasTheDefaultsOfPython) {
    const Spec found = parse_manifest(manifest(spec(""))).spec;
    EXPECT_EQ(found.letterbox.placement, Placement::center);
    EXPECT_EQ(found.letterbox.rounding, Rounding::round);
    EXPECT_EQ(found.letterbox.fill, 114);
    EXPECT_EQ(found.output, Output::dense);
    EXPECT_DOUBLE_EQ(found.nms_iou, 0.7);
}

struct Bad {
    const char* name;
    std::string text;
    const char* field;
};

class BadManifest : public testing::TestWithParam<Bad> {};

TEST_P(BadManifest, IsRefusedByField) {
    const std::string message = refusal(GetParam().text);
    EXPECT_NE(message.find(GetParam().field), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadManifest,
    testing::Values(
        Bad{"empty", "", "file"}, Bad{"cut", manifest(spec("")).substr(0, 90), "file"},
        Bad{"list", "[]", "not an object"}, Bad{"number", "7", "not an object"},
        Bad{"version", R"({"manifest_version": 2})", "manifest_version"},
        Bad{"backend", R"({"backend": 3})", "backend"},
        Bad{"precision", R"({"backend": "openvino"})", "precision"},
        Bad{"rectangles", manifest(spec(""), R"(, "rectangles": "m")"), "rectangles"},
        Bad{"rectangle", manifest(spec(""), R"(, "rectangles": [4])"), "rectangles"}, Bad{"spec", manifest("[]"), "spec"},
        Bad{"missing", manifest(R"({"family": "f"})"), "spec.height"},
        Bad{"zero", manifest(R"({"height": 0})"), "spec.height"},
        Bad{"huge", manifest(R"({"height": 16385})"), "spec.height"},
        Bad{"absurd", manifest(R"({"height": 1e300})"), "spec.height"},
        Bad{"wide", manifest(R"({"height": 18446744073709551615})"), "spec.height"},
        Bad{"text", manifest(R"({"height": "416"})"), "spec.height"},
        Bad{"classes", manifest(R"({"height": 1, "width": 1, "classes": []})"), "spec.classes"},
        Bad{"name", manifest(R"({"height": 1, "width": 1, "classes": [1]})"), "spec.classes"},
        Bad{"fill", manifest(spec(R"(, "letterbox": {"fill": 256})")), "spec.letterbox.fill"},
        Bad{"place", manifest(spec(R"(, "letterbox": {"placement": "x"})")), "placement"},
        Bad{"unknown", manifest(spec(R"(, "mean": 3)")), "does not know"},
        Bad{"iou", manifest(spec(R"(, "nms_iou": 1.5)")), "spec.nms_iou"},
        Bad{"output", manifest(spec(R"(, "output": "masks")")), "spec.output"},
        Bad{"options", manifest(spec(""), R"(, "options": 1)"), "options"}),
    [](const auto& bad) { return bad.param.name; });

TEST(Manifest, SurvivesDeepNesting) {
    EXPECT_NE(refusal(std::string(1'000'000, '[')).find("not JSON"), std::string::npos);
}

class EngineFolder : public testing::Test {
protected:
    void SetUp() override {
        folder_ =
            fs::path(testing::TempDir()) /
            ("raudo_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
        fs::create_directories(folder_);
        write("m.xml", "abc");
        write("m.xml.json", manifest(spec("")));
    }
    void TearDown() override { fs::remove_all(folder_); }

    void write(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }
    std::string refusal() const {
        try {
            read_manifest(folder_ / "m.xml");
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    }

    fs::path folder_;
};

TEST_F(EngineFolder, IsReadWhenWhole) {
    EXPECT_EQ(refusal(), "");
}

TEST_F(EngineFolder, MissesItsEngine) {
    fs::remove(folder_ / "m.xml");
    EXPECT_NE(refusal().find("no such engine file"), std::string::npos);
}

TEST_F(EngineFolder, MissesItsManifest) {
    fs::remove(folder_ / "m.xml.json");
    EXPECT_NE(refusal().find("has no manifest m.xml.json"), std::string::npos);
}

TEST_F(EngineFolder, HasAnotherEngine) {
    write("m.xml", "abd");
    EXPECT_NE(refusal().find("is not the file that"), std::string::npos);
}

TEST_F(EngineFolder, HasAnotherManifest) {
    write("m.xml.json", manifest(spec(""), "", R"("n.xml": "")"));
    EXPECT_NE(refusal().find("does not describe"), std::string::npos);
}

TEST_F(EngineFolder, DoesNotLookOutsideOfItself) {
    write("m.xml.json", manifest(spec(""), "", files + R"(, "../m.xml": "")"));
    EXPECT_NE(refusal().find("'../m.xml'"), std::string::npos);
}

TEST_F(EngineFolder, NamesTheManifestThatIsBroken) {
    write("m.xml.json", "{");
    EXPECT_NE(refusal().find("m.xml.json is not a manifest"), std::string::npos);
}

// The expected digests are those of Python's hashlib; the lengths are those where padding turns.
TEST_F(EngineFolder, IsHashedAtEveryPadding) {
    const std::vector<std::pair<std::size_t, std::string>> digests = {
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {55, "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072"},
        {56, "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e"},
        {63, "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2"},
        {64, "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"},
        {1048575, "f7ddf2723b5663ba2a2e2c642355c78ce5cfca89b5c21c5dde226334e31fb340"},
        {1048632, "3c9230729bc6b74963e957e8989397c343c425fe364f040e0773bbe41a0b5294"},
    };
    for (const auto& [length, digest] : digests) {
        write("data", std::string(length, 'x'));
        EXPECT_EQ(sha256(folder_ / "data"), digest) << length;
    }
    EXPECT_EQ(sha256(folder_ / "m.xml"), abc_digest);
    EXPECT_EQ(sha256(folder_ / "missing"), "");
}

}  // namespace
}  // namespace raudo
