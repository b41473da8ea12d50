#pragma once

#include <string>
#include <vector>

#include "pipeline.hpp"

namespace raudo::app {

/// What a run over a source did; the fields of `raudo detect --json`, and the stages' times.
struct Summary {
    std::string source;
    long frames = 0;
    long detections = 0;
    /// Frames that could not be decoded.
    long skipped = 0;
    /// From opening the source to the last frame: decoding, drawing and writing included.
    double seconds = 0;
    /// From the start of the program to the detections of the first frame.
    double first_seconds = 0;
    std::vector<std::string> outputs;
    bool interrupted = false;
    /// One entry a frame; empty without --benchmark.
    std::vector<Milliseconds> took;
};

/// Returns the summary for people, or as one JSON object.
std::string render(const Summary& summary, bool json);

}  // namespace raudo::app
