#pragma once

#include <atomic>
#include <chrono>
#include <opencv2/core.hpp>
#include <optional>
#include <string>

#include "decoder.hpp"

namespace raudo::app {

/// One image of a source.
struct Frame {
    cv::Mat image;
    cv::Size size;
    long number = 0;
    /// Position in the video, or since the camera was opened.
    double time_ms = 0;
};

/// The frames of a video file, of a camera (a number), or of a stream (an RTSP or HTTP address).
class Source {
public:
    /// Args: stop, ends any waiting for a camera or a stream once it is true.
    ///
    /// Throws Error: it is missing, or cannot be opened.
    Source(const std::string& name, const std::atomic<bool>& stop);

    /// Reads the next frame into `frame`; false at the end, or once it was stopped.
    ///
    /// Throws Error: there is not one frame, or a camera or a stream gave no more before its end.
    bool read(Frame& frame);

    /// Frames a second that a video of them should have.
    double fps() const { return fps_; }
    /// Whether frames come as fast as they happen.
    bool live() const { return kind_ != Decoder::Kind::file; }
    /// Frames that could not be decoded, or that the header promises but the file does not have.
    long skipped() const { return skipped_; }
    const std::string& name() const { return name_; }

private:
    std::string name_;
    const std::atomic<bool>& stop_;
    Decoder::Kind kind_ = Decoder::Kind::file;
    std::optional<Decoder> decoder_;
    std::chrono::steady_clock::time_point opened_;
    double fps_ = 25;
    long promised_ = 0;
    long read_ = 0;
    long skipped_ = 0;
};

}  // namespace raudo::app
