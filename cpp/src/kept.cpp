#include "kept.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <random>
#include <tuple>

#include "sha256.hpp"

namespace raudo {
namespace {

namespace fs = std::filesystem;

constexpr auto suffix = ".blob";
constexpr auto shipped = "compiled";  // the folder beside an engine
constexpr std::streamsize digest_bytes = 64;
constexpr std::uintmax_t most_bytes = std::uintmax_t{1} << 30;  // of all files

/// Removes the files beyond the most that may be kept, those not used for longest first.
void bound(const fs::path& folder) {
    std::error_code failed;  // another process may remove them too
    std::vector<std::tuple<fs::file_time_type, std::uintmax_t, fs::path>> used;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, failed)) {
        const auto time = entry.last_write_time(failed);
        const auto bytes = entry.file_size(failed);
        if (!failed && entry.path().extension() == suffix) {
            used.emplace_back(time, bytes, entry.path());
        }
    }
    std::sort(used.rbegin(), used.rend());
    std::uintmax_t total = 0;
    for (const auto& [time, bytes, file] : used) {
        total += bytes;
        if (total > most_bytes) {
            fs::remove(file, failed);
        }
    }
}

/// Opens a file where what is kept begins; none where it is not whole.
std::optional<std::ifstream> open_whole(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    std::string digest(digest_bytes, '\0');
    stream.read(digest.data(), digest_bytes);
    if (!stream || digest != sha256(stream)) {
        return std::nullopt;
    }
    stream.clear();
    stream.seekg(digest_bytes);
    return stream;
}

/// A file beside another, on its way to become it; removed in the end.
struct Draft {
    explicit Draft(const fs::path& of) : file(of.string() + "." + std::to_string(std::random_device{}())) {}
    ~Draft() {
        std::error_code ignored;
        fs::remove(file, ignored);
    }
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;

    const fs::path file;
};

}  // namespace

Kept::Kept(const fs::path& folder, const std::vector<std::string>& words, const fs::path& engine) {
    std::string name;
    for (const std::string& word : words) {
        name += (name.empty() ? "" : "-") + word;
    }
    std::replace_if(
        name.begin(), name.end(),
        [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '.'; }, '_');
    name += suffix;
    file_ = folder.empty() ? folder : folder / name;
    shipped_ = engine.parent_path() / shipped / name;
}

std::optional<std::ifstream> Kept::open() const {
    auto stream = open_whole(file_);
    if (!stream) {
        return open_whole(shipped_);
    }
    std::error_code failed;  // a folder that only others may write
    fs::last_write_time(file_, fs::file_time_type::clock::now(), failed);
    return stream;
}

void Kept::keep(const std::function<void(std::ostream&)>& write) const {
    if (file_.empty()) {
        return;
    }
    std::error_code failed;
    fs::create_directories(file_.parent_path(), failed);
    const Draft plain(file_), whole(file_);
    std::ofstream stream(plain.file, std::ios::binary);
    write(stream);  // apart: OpenVINO wants to begin its file, and ends at another place than its end
    stream.close();
    std::ifstream written(plain.file, std::ios::binary);
    std::ofstream draft(whole.file, std::ios::binary);
    draft << sha256(plain.file) << written.rdbuf();
    draft.close();
    if (stream && written && draft) {
        fs::rename(whole.file, file_, failed);
        bound(file_.parent_path());
    }
}

}  // namespace raudo
