#pragma once

#include <filesystem>
#include <opencv2/core.hpp>

#include "libav.hpp"

namespace raudo::app {

/// An MP4 file that is being written, in MPEG-4 Part 2 as `raudo detect` writes it.
class Encoder {
public:
    /// Frames are of that size, in pixels. Whether it can be written tells `is_open`.
    Encoder(const std::filesystem::path& path, double fps, cv::Size size);

    bool is_open() const { return open_; }
    /// Adds a BGR image; false where the file could not be written.
    bool write(const cv::Mat& image);
    /// Writes what is left; false where the file could not be written.
    bool finish();

private:
    bool open(const std::filesystem::path& path);
    bool drain();

    libav::Output output_;
    libav::Codec codec_;
    libav::Packet packet_{av_packet_alloc()};
    libav::Picture picture_{av_frame_alloc()};
    libav::Scaler scaler_;
    AVStream* stream_ = nullptr;
    std::int64_t written_ = 0;
    bool open_ = false;
};

}  // namespace raudo::app
