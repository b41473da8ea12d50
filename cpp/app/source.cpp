#include "source.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>

#include "raudo/detector.hpp"

namespace raudo::app {
namespace {

using Kind = Decoder::Kind;
using Clock = std::chrono::steady_clock;

constexpr double max_fps = 1000;  // beyond it a header tells nonsense
constexpr double max_frames = 1e9;

bool is_number(const std::string& name) {
    return !name.empty() && name.size() < 6 &&
           std::all_of(name.begin(), name.end(),
                       [](unsigned char c) { return std::isdigit(c) != 0; });
}

Kind kind_of(const std::string& name) {
    if (name.find("://") != std::string::npos) {
        return Kind::stream;
    }
    return is_number(name) && !std::filesystem::exists(name) ? Kind::camera : Kind::file;
}

Error does_not_open(const std::string& name, Kind kind) {
    switch (kind) {
        case Kind::camera:
            return {"there is no camera " + name,
                    "is it plugged in, not used by another program, and libavdevice installed?"};
        case Kind::stream:
            return {"cannot read " + name + " as a video", "is the stream up, its address right?"};
        default:
            return {"cannot read " + name + " as a video",
                    "it is empty, damaged, cut off, or no video at all: does it play elsewhere?"};
    }
}

}  // namespace

Source::Source(const std::string& name, const std::atomic<bool>& stop)
    : name_(name), stop_(stop), kind_(kind_of(name)), opened_(Clock::now()) {
    if (kind_ == Kind::file && !std::filesystem::is_regular_file(name)) {
        throw Error("no such video: " + name,
                    "check the path; a camera is a number, a stream an address such as rtsp://...");
    }
    decoder_.emplace(name, kind_, stop);
    if (!decoder_->is_open()) {
        throw does_not_open(name, kind_);
    }
    const double fps = decoder_->fps(), frames = decoder_->frames();
    fps_ = fps > 0 && fps <= max_fps ? fps : fps_;
    promised_ = frames > 0 && frames < max_frames ? std::lround(frames) : 0;
}

bool Source::read(Frame& frame) {
    if (!decoder_->read(frame.image)) {
        if (stop_) {
            return false;
        }
        if (read_ == 0) {
            throw Error("no frame in " + name_, "it is damaged, cut off, or no video at all");
        }
        if (live() && (promised_ == 0 || read_ < promised_)) {  // else a recording at its end
            throw Error((kind_ == Kind::camera ? "camera " : "") + name_ + " gave no more after " +
                            std::to_string(read_) + " frames",
                        "is it still plugged in or up? what was found so far is kept");
        }
        skipped_ = std::max(decoder_->damaged(), promised_ - read_);
        return false;
    }
    const double since_opened =
        std::chrono::duration<double, std::milli>(Clock::now() - opened_).count();
    const double by_rate = static_cast<double>(read_) * 1000 / fps_;
    frame.time_ms = live() ? since_opened : decoder_->time_ms().value_or(by_rate);
    frame.size = frame.image.size();
    frame.number = read_++;
    return true;
}

}  // namespace raudo::app
