#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "kept.hpp"

namespace raudo {
namespace {

namespace fs = std::filesystem;

class KeptTest : public testing::Test {
protected:
    void TearDown() override { fs::remove_all(folder); }

    Kept kept(const std::string& word = "2") const {
        return {folder, {"a b/c", "1.0-x", word}, folder / "engine.xml"};
    }

    static void keep(const Kept& kept, const std::string& content) {
        kept.keep([&](std::ostream& stream) { stream << content; });
    }

    static std::string read(const Kept& kept) {
        auto stream = kept.open();
        return stream ? std::string(std::istreambuf_iterator<char>(*stream), {}) : "";
    }

    /// Sets aside a file that was used that long ago.
    fs::path old(const std::string& name, std::uintmax_t bytes, std::chrono::hours ago) const {
        fs::create_directories(folder);
        const fs::path file = folder / name;
        std::ofstream{file};
        fs::resize_file(file, bytes);  // a hole, which takes no room
        fs::last_write_time(file, fs::file_time_type::clock::now() - ago);
        return file;
    }

    const fs::path folder =
        fs::temp_directory_path() / ("raudo-kept-" + std::to_string(getpid()));
    const std::string content = std::string("what was\0compiled", 17);
};

TEST_F(KeptTest, ComesBackByTheSameWords) {
    EXPECT_EQ(kept().open(), std::nullopt);
    keep(kept(), content);
    EXPECT_EQ(kept().file(), folder / "a_b_c-1.0-x-2.blob");
    EXPECT_EQ(read(kept()), content);
    EXPECT_EQ(fs::file_size(kept().file()), content.size() + 64);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
    EXPECT_EQ(kept("3").open(), std::nullopt);
}

TEST_F(KeptTest, ADamagedFileIsNone) {
    keep(kept(), content);
    std::ifstream stream(kept().file(), std::ios::binary);
    const std::string whole(std::istreambuf_iterator<char>(stream), {});
    for (std::size_t i = 0; i < whole.size(); ++i) {
        std::string damaged = whole;
        damaged[i] = static_cast<char>(damaged[i] ^ 1);
        std::ofstream(kept().file(), std::ios::binary) << damaged;
        EXPECT_EQ(kept().open(), std::nullopt) << i;
        std::ofstream(kept().file(), std::ios::binary) << whole.substr(0, i);
        EXPECT_EQ(kept().open(), std::nullopt) << i;
    }
}

TEST_F(KeptTest, WhatWasNotUsedForLongestMakesRoom) {
    const std::uintmax_t large = 400U << 20U;
    const fs::path oldest = old("oldest.blob", large, std::chrono::hours(3));
    const fs::path older = old("older.blob", large, std::chrono::hours(2));
    const fs::path recent = old("recent.blob", large, std::chrono::hours(1));
    const fs::path other = old("other.timing", large, std::chrono::hours(9));
    keep(kept(), content);
    EXPECT_FALSE(fs::exists(oldest));
    for (const fs::path& file : {older, recent, other, kept().file()}) {
        EXPECT_TRUE(fs::exists(file)) << file;
    }
}

TEST_F(KeptTest, WhatWasShippedWithTheEngineServesWhereNothingWasKept) {
    const Kept made(folder / "compiled", {"a"}, "");
    keep(made, content);
    EXPECT_EQ(read(Kept("", {"a"}, folder / "engine.xml")), content);
    const Kept both(folder / "cache", {"a"}, folder / "engine.xml");
    EXPECT_EQ(read(both), content);
    keep(both, "compiled here");
    EXPECT_EQ(read(both), "compiled here");
    EXPECT_EQ(read(made), content);
    std::ofstream(made.file(), std::ios::binary) << "damaged";
    EXPECT_EQ(Kept("", {"a"}, folder / "engine.xml").open(), std::nullopt);
}

TEST_F(KeptTest, NothingIsKeptWithoutAFolderOrWhereItCannotBe) {
    keep(Kept("", {"a"}, "engine.xml"), content);
    EXPECT_EQ(Kept("", {"a"}, "engine.xml").open(), std::nullopt);
    old("file", 1, std::chrono::hours(0));
    const Kept below(folder / "file", {"a"}, folder / "engine.xml");
    keep(below, content);
    EXPECT_EQ(below.open(), std::nullopt);
}

}  // namespace
}  // namespace raudo
