#include "summary.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace raudo::app {
namespace {

using Json = nlohmann::ordered_json;

/// Linear interpolation between the two nearest values, as `numpy.percentile` does.
double percentile(const std::vector<double>& sorted, double share) {
    const double place = share * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

Json stages(const std::vector<Milliseconds>& took) {
    Json found = Json::object();
    for (std::size_t stage = 0; stage < stage_count && !took.empty(); ++stage) {
        std::vector<double> times;
        times.reserve(took.size());
        for (const Milliseconds& frame : took) {
            times.push_back(frame[stage]);
        }
        std::sort(times.begin(), times.end());
        found[std::string(stage_names[stage])] = {{"p50", percentile(times, 0.50)},
                                                  {"p95", percentile(times, 0.95)},
                                                  {"p99", percentile(times, 0.99)}};
    }
    return found;
}

double fps(const Summary& summary) {
    return summary.seconds > 0 ? static_cast<double>(summary.frames) / summary.seconds : 0;
}

std::string table(const std::vector<Milliseconds>& took) {
    std::string text;
    const Json found = stages(took);
    for (const auto& [stage, times] : found.items()) {
        std::array<char, 96> row{};
        std::snprintf(row.data(), row.size(), "  %-12s %8.2f %8.2f %8.2f\n", stage.c_str(),
                      times["p50"].get<double>(), times["p95"].get<double>(),
                      times["p99"].get<double>());
        text += row.data();
    }
    return text.empty() ? text : "  ms a frame        p50      p95      p99\n" + text;
}

}  // namespace

std::string render(const Summary& summary, bool json) {
    if (json) {
        Json found = {{"source", summary.source},
                      {"frames", summary.frames},
                      {"detections", summary.detections},
                      {"skipped", summary.skipped},
                      {"seconds", summary.seconds},
                      {"fps", fps(summary)},
                      {"first_seconds", summary.first_seconds},
                      {"outputs", summary.outputs},
                      {"interrupted", summary.interrupted}};
        if (!summary.took.empty()) {
            found["stages_ms"] = stages(summary.took);
        }
        return found.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
    }
    std::array<char, 160> line{};
    std::snprintf(line.data(), line.size(), ": %ld frames, %ld detections, %.1f s, %.1f FPS",
                  summary.frames, summary.detections, summary.seconds, fps(summary));
    std::string text = summary.source + line.data();
    text += summary.skipped > 0 ? ", " + std::to_string(summary.skipped) + " frames skipped" : "";
    text += summary.interrupted ? ", interrupted\n" : "\n";
    for (const std::string& output : summary.outputs) {
        text += "wrote " + output + "\n";
    }
    return text + table(summary.took);
}

}  // namespace raudo::app
