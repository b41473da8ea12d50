#include <gtest/gtest.h>

#include "summary.hpp"
#include "writers.hpp"

namespace raudo::app {
namespace {

// The expected line is what raudo.media.outputs.describe gives in Python.
TEST(Describe, IsTheLineOfPython) {
    Frame frame{{}, {5, 3}, 7, 280.28};
    const std::vector<Detection> found = {{{0, 1.125F, 2.675F, 100000}, 0.87654F, 1},
                                          {{1, 2, 3, 4}, 0.25F, 0}};
    EXPECT_EQ(
        describe("a \"b\".mp4", frame, found, {"coche", "camión"}),
        R"({"source": "a \"b\".mp4", "frame": 7, "time_ms": 280.28, "width": 5, "height": 3, )"
        R"("detections": [{"box": [0.0, 1.12, 2.67, 100000.0], "score": 0.8765, "label": 1, )"
        R"("class": "camión"}, {"box": [1.0, 2.0, 3.0, 4.0], "score": 0.25, "label": 0, )"
        R"("class": "coche"}]})");
}

TEST(Describe, ReplacesBytesThatAreNoText) {
    const Frame frame{{}, {1, 1}, 0, 0};
    EXPECT_NE(describe("\xff", frame, {}, {"a"}).find("\xEF\xBF\xBD"), std::string::npos);
}

TEST(Summary, GivesPercentilesOnlyWhenAsked) {
    Summary summary;
    summary.source = "v.mp4";
    EXPECT_EQ(render(summary, true).find("stages_ms"), std::string::npos);
    for (int i = 0; i < 5; ++i) {
        summary.took.push_back({1.0 * i, 0, 0, 0, 0});
    }
    const std::string json = render(summary, true);
    EXPECT_NE(json.find("\"p50\": 2.0"), std::string::npos) << json;
    EXPECT_NE(json.find("\"p95\": 3.8"), std::string::npos) << json;
}

TEST(JsonLines, SayThatTheyCannotBeWritten) {
    JsonLines lines("/dev/null/x.jsonl");
    EXPECT_THROW(lines.write("{}"), Error);
}

TEST(VideoFile, SaysThatItCannotBeWrittenOrChangesSize) {
    Frame frame{cv::Mat(32, 32, CV_8UC3, cv::Scalar(1, 2, 3)), {32, 32}, 0, 0};
    VideoFile nowhere("/dev/null/x.mp4", 25);
    EXPECT_THROW(nowhere.write(frame, frame.image), Error);
    const auto path = std::filesystem::path(testing::TempDir()) / "raudo_sizes.mp4";
    VideoFile video(path, 25);
    video.write(frame, frame.image);
    EXPECT_THROW(video.write(frame, cv::Mat(16, 16, CV_8UC3)), Error);
    EXPECT_FALSE(std::filesystem::exists(path));
    video.finish();
    EXPECT_TRUE(std::filesystem::exists(path));
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace raudo::app
