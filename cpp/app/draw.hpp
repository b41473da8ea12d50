#pragma once

#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "raudo/detector.hpp"

namespace raudo::app {

/// Draws boxes and labels on an image as `raudo/media/draw.py` does, the best score on top.
void draw(cv::Mat& image, const std::vector<Detection>& detections,
          const std::vector<std::string>& classes);

}  // namespace raudo::app
