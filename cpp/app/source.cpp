#include "source.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <opencv2/core/utils/logger.hpp>

#include "raudo/detector.hpp"

namespace raudo::app {
namespace {

constexpr double max_fps = 1000;  // beyond it a header tells nonsense
constexpr double max_frames = 1e9;
constexpr int max_tries = 16;  // damaged frames in a row

bool is_number(const std::string& name) {
    return !name.empty() && name.size() < 6 &&
           std::all_of(name.begin(), name.end(),
                       [](unsigned char c) { return std::isdigit(c) != 0; });
}

/// Lets this program say itself what is wrong with a file.
void silence_libraries() {
#ifdef _WIN32
    _putenv_s("OPENCV_FFMPEG_LOGLEVEL", "-8");
#else
    setenv("OPENCV_FFMPEG_LOGLEVEL", "-8", /*overwrite=*/0);
#endif
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
}

}  // namespace

Source::Source(const std::string& name) : name_(name), opened_(cv::getTickCount()) {
    silence_libraries();
    const bool address = name.find("://") != std::string::npos;
    camera_ = !std::filesystem::exists(name) && is_number(name);
    live_ = camera_ || address;
    if (!live_ && !std::filesystem::is_regular_file(name)) {
        throw Error("no such video: " + name,
                    "check the path; a camera is a number, a stream an address such as rtsp://...");
    }
    const bool open =
        camera_ ? capture_.open(std::stoi(name)) : capture_.open(name, cv::CAP_FFMPEG);
    if (!open && camera_) {
        throw Error("there is no camera " + name,
                    "is it plugged in, and not used by another program?");
    }
    if (!open) {
        throw Error("cannot read " + name + " as a video",
                    address ? "is the stream up, and its address right?"
                            : "it is empty, damaged, cut off, or no video at all: does it play "
                              "elsewhere?");
    }
    const double fps = capture_.get(cv::CAP_PROP_FPS);
    const double frames = capture_.get(cv::CAP_PROP_FRAME_COUNT);
    fps_ = fps > 0 && fps <= max_fps ? fps : fps_;
    promised_ = !live_ && frames > 0 && frames < max_frames ? std::lround(frames) : 0;
}

/// Reads the next frame that can be decoded; after one that cannot, the next ones may be whole.
bool Source::read_whole(cv::Mat& image) {
    for (int tries = 0; tries < max_tries; ++tries) {
        if (capture_.read(image) && !image.empty()) {
            return true;
        }
        if (read_ + tries + 1 >= promised_) {
            return false;
        }
    }
    return false;
}

bool Source::read(Frame& frame) {
    if (!read_whole(frame.image)) {
        if (read_ == 0) {
            throw Error("no frame in " + name_, "it is damaged, cut off, or no video at all");
        }
        if (live_) {
            throw Error((camera_ ? "camera " : "") + name_ + " gave no more after " +
                            std::to_string(read_) + " frames",
                        "is it still plugged in or up? what was found so far is kept");
        }
        skipped_ = std::max(0L, promised_ - read_);
        return false;
    }
    const double seconds =
        static_cast<double>(cv::getTickCount() - opened_) / cv::getTickFrequency();
    frame.number = read_++;
    frame.time_ms = live_ ? seconds * 1000 : capture_.get(cv::CAP_PROP_POS_MSEC);
    return true;
}

}  // namespace raudo::app
