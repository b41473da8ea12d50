#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <opencv2/videoio.hpp>
#include <string>

namespace raudo::app {

/// One image of a source.
struct Frame {
    cv::Mat image;
    long number = 0;
    /// Position in the video, or since the camera was opened.
    double time_ms = 0;
};

/// The frames of a video file, of a camera (a number), or of a stream (an RTSP or HTTP address).
class Source {
public:
    /// Throws Error: it is missing, or cannot be opened.
    explicit Source(const std::string& name);

    /// Reads the next frame into `frame`; false at the end.
    ///
    /// Throws Error: there is not one frame, or a camera or a stream stopped to give any.
    bool read(Frame& frame);

    /// Frames a second that a video of them should have.
    double fps() const { return fps_; }
    /// Whether frames come as fast as they happen.
    bool live() const { return live_; }
    /// Frames that the header promises but that could not be decoded, once the end is reached.
    long skipped() const { return skipped_; }
    const std::string& name() const { return name_; }

private:
    bool read_whole(cv::Mat& image);

    std::string name_;
    cv::VideoCapture capture_;
    bool live_ = false;
    bool camera_ = false;
    double fps_ = 25;
    long promised_ = 0;
    long read_ = 0;
    long skipped_ = 0;
    std::int64_t opened_ = 0;
};

}  // namespace raudo::app
