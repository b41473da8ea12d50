#include "writers.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

namespace raudo::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr auto incomplete = "not all frames could be written; is the disk full?";

Error unwritable(const fs::path& path, const std::string& reason) {
    return {"cannot write " + path.string() + ": " + reason,
            "choose another place, or make room there"};
}

std::string quoted(const std::string& text) {
    return Json(text).dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

/// Rounds as Python's `round`: correctly, from the exact binary value.
std::string rounded(double value, int places) {
    std::array<char, 400> digits{};
    std::snprintf(digits.data(), digits.size(), "%.*f", places, value);
    return Json(std::strtod(digits.data(), nullptr)).dump();
}

std::string size_text(cv::Size size) {
    return std::to_string(size.width) + "x" + std::to_string(size.height);
}

}  // namespace

std::string describe(const std::string& source, const Frame& frame,
                     const std::vector<Detection>& detections,
                     const std::vector<std::string>& classes) {
    std::string line = "{\"source\": " + quoted(source);
    line += ", \"frame\": " + std::to_string(frame.number);
    line += ", \"time_ms\": " + rounded(frame.time_ms, 3);
    line += ", \"width\": " + std::to_string(frame.size.width);
    line += ", \"height\": " + std::to_string(frame.size.height);
    line += ", \"detections\": [";
    for (const Detection& found : detections) {
        line += &found == detections.data() ? "{\"box\": [" : ", {\"box\": [";
        for (std::size_t side = 0; side < 4; ++side) {
            line += (side > 0 ? ", " : "") + rounded(found.box[side], 2);
        }
        line += "], \"score\": " + rounded(found.score, 4);
        line += ", \"label\": " + std::to_string(found.label);
        line += ", \"class\": " + quoted(classes[static_cast<std::size_t>(found.label)]) + "}";
    }
    return line + "]}";
}

void JsonLines::write(const std::string& line) {
    if (!stream_.is_open()) {
        std::error_code ignored;  // opening the file tells
        fs::create_directories(path_.parent_path(), ignored);
        stream_.open(path_, std::ios::binary | std::ios::trunc);
    }
    stream_ << line << '\n' << std::flush;
    if (!stream_) {
        throw unwritable(path_, "no such place, no right to write, or no room");
    }
}

VideoFile::VideoFile(fs::path path, double fps) : path_(std::move(path)), fps_(fps) {}

VideoFile::~VideoFile() {
    encoder_.reset();
    std::error_code ignored;
    fs::remove(draft_, ignored);
}

void VideoFile::open(cv::Size size) {
    std::error_code failed;
    if (!path_.parent_path().empty()) {
        fs::create_directories(path_.parent_path(), failed);
    }
    draft_ = path_.parent_path() /
             ("." + std::to_string(std::random_device{}()) + "." + path_.filename().string());
    size_ = size;
    encoder_.emplace(draft_, fps_, size);
    if (failed || !encoder_->is_open()) {
        throw unwritable(path_, "no video of " + size_text(size) + " can be made there");
    }
}

void VideoFile::write(const Frame& frame, const cv::Mat& drawn) {
    if (!encoder_) {
        open(drawn.size());
    }
    if (drawn.size() != size_) {
        throw Error("frame " + std::to_string(frame.number) + " is " + size_text(drawn.size()) +
                        ", but the first is " + size_text(size_),
                    "a video keeps its size: write --jsonl only, or cut the source there");
    }
    if (!encoder_->write(drawn)) {
        throw unwritable(path_, incomplete);
    }
}

void VideoFile::finish() {
    if (!encoder_ || !encoder_->is_open()) {
        return;
    }
    std::error_code failed;
    if (encoder_->finish()) {
        fs::rename(draft_, path_, failed);
    } else {
        failed = std::make_error_code(std::errc::no_space_on_device);
    }
    if (failed) {
        throw unwritable(path_, incomplete);
    }
}

}  // namespace raudo::app
