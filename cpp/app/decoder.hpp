#pragma once

#include <atomic>
#include <chrono>
#include <opencv2/core.hpp>
#include <optional>
#include <string>

#include "libav.hpp"

namespace raudo::app {

/// The frames of a file, a camera or a stream, through FFmpeg's libraries alone: OpenCV's videoio
/// links two hundred more, which cost a quarter of a second and 50 MB.
///
/// The pixels are those of `cv2.VideoCapture`: one bicubic conversion to BGR, turned as the file
/// says.
class Decoder {
public:
    enum class Kind { file, camera, stream };

    /// Args: name, a path, a camera's number or an address; stop, ends any waiting once it is true.
    Decoder(const std::string& name, Kind kind, const std::atomic<bool>& stop);

    /// Whether it could be opened.
    bool is_open() const { return codec_ != nullptr; }

    /// Decodes the next frame that can be decoded; false at the end.
    bool read(cv::Mat& image);

    /// Frames a second; 0 where it does not tell.
    double fps() const;
    /// Number of frames that the header promises; 0 where it does not tell.
    double frames() const;
    /// Position of the frame that was read last, if it has one.
    std::optional<double> time_ms() const { return time_ms_; }
    /// Frames that could not be decoded.
    long damaged() const { return damaged_; }

private:
    bool open_input(const std::string& name);
    bool open_codec();
    void feed();
    void convert(cv::Mat& image);
    void await();
    static int is_over(void* self);

    Kind kind_;
    const std::atomic<bool>& stop_;
    std::chrono::steady_clock::time_point deadline_;
    bool gave_up_ = false;
    libav::Input input_;
    libav::Codec codec_;
    libav::Packet packet_{av_packet_alloc()};
    libav::Picture picture_{av_frame_alloc()};
    libav::Scaler scaler_;
    const AVStream* stream_ = nullptr;
    int quarter_turns_ = 0;
    std::optional<double> time_ms_;
    long damaged_ = 0;
};

}  // namespace raudo::app
