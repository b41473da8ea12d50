#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace raudo {

/// What a runtime compiled of an engine, kept as one file of a cache folder: the twin of
/// `raudo/kept.py`, so that either starts from what the other compiled.
///
/// A file begins with the SHA-256 of the rest, in hex: runtimes take damaged weights without a word.
class Kept {
public:
    /// Args: folder, an empty one keeps nothing; words, all that what is compiled depends on; engine,
    /// the file beside which what was shipped with it lies.
    Kept(const std::filesystem::path& folder, const std::vector<std::string>& words,
         const std::filesystem::path& engine);

    /// Opens the file where what is kept begins; none where nothing whole is.
    std::optional<std::ifstream> open() const;

    /// Keeps what `write` writes, in the place of what was not used for longest; where there is room.
    void keep(const std::function<void(std::ostream&)>& write) const;

    const std::filesystem::path& file() const { return file_; }

private:
    std::filesystem::path file_, shipped_;
};

}  // namespace raudo
