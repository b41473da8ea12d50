#include "rectangles.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

#include "raudo/detector.hpp"

namespace raudo {
namespace {

/// Whether engines differ in nothing but their rectangle.
bool same_network(const Manifest& a, const Manifest& b) {
    return a.backend == b.backend && a.precision == b.precision && a.options == b.options &&
           a.source_sha256 == b.source_sha256 && a.spec.classes == b.spec.classes &&
           a.spec.output == b.spec.output;
}

}  // namespace

std::size_t smallest(int height, int width, const std::vector<Spec>& specs) {
    const auto scale = [&](const Spec& spec) {
        return std::min(static_cast<double>(spec.height) / height,
                        static_cast<double>(spec.width) / width);
    };
    const auto area = [](const Spec& spec) { return std::int64_t{spec.height} * spec.width; };
    std::size_t best = 0;
    for (std::size_t i = 1; i < specs.size(); ++i) {
        const double gain = scale(specs[i]) - scale(specs[best]);
        if (gain > 0 || (gain == 0 && area(specs[i]) < area(specs[best]))) {
            best = i;
        }
    }
    return best;
}

std::vector<std::pair<std::filesystem::path, Manifest>> read_rectangles(
    const std::filesystem::path& engine) {
    std::vector<std::pair<std::filesystem::path, Manifest>> found;
    found.emplace_back(engine, read_manifest(engine));
    const std::vector<std::string> names = found[0].second.rectangles;
    for (const std::string& name : names) {
        const std::filesystem::path other =
            engine.parent_path() / std::filesystem::path(name).filename();
        Manifest manifest = read_manifest(other);
        if (!same_network(found[0].second, manifest)) {
            throw Error(
                other.string() + " is no engine of the same network as " + engine.string(),
                "copy all engines of a run together, or make them again");
        }
        found.emplace_back(other, std::move(manifest));
    }
    return found;
}

}  // namespace raudo
