#pragma once

#include <filesystem>
#include <fstream>
#include <opencv2/core.hpp>
#include <optional>
#include <string>
#include <vector>

#include "encoder.hpp"
#include "raudo/detector.hpp"
#include "source.hpp"

namespace raudo::app {

/// Returns the line of a frame, the very one that `raudo detect --jsonl` writes.
std::string describe(const std::string& source, const Frame& frame,
                     const std::vector<Detection>& detections,
                     const std::vector<std::string>& classes);

/// A file of JSON lines, made when the first line is there; each is written whole and at once.
class JsonLines {
public:
    explicit JsonLines(std::filesystem::path path) : path_(std::move(path)) {}

    /// Throws Error: the file cannot be written.
    void write(const std::string& line);

private:
    std::filesystem::path path_;
    std::ofstream stream_;
};

/// An MP4 file, under a temporary name until it is whole.
class VideoFile {
public:
    VideoFile(std::filesystem::path path, double fps);
    ~VideoFile();
    VideoFile(const VideoFile&) = delete;
    VideoFile& operator=(const VideoFile&) = delete;

    /// Throws Error: the file cannot be written, or the frame is not of the first one's size.
    void write(const Frame& frame, const cv::Mat& drawn);

    /// Closes the file and gives it its name. Throws Error: the file cannot be written.
    void finish();

private:
    void open(cv::Size size);

    std::filesystem::path path_, draft_;
    double fps_;
    std::optional<Encoder> encoder_;
    cv::Size size_;
};

}  // namespace raudo::app
