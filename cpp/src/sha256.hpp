#pragma once

#include <filesystem>
#include <istream>
#include <string>

namespace raudo {

/// Returns the hex SHA-256 of a stream's rest (FIPS 180-4); empty where it cannot be read.
std::string sha256(std::istream& stream);
/// Returns that of a file.
std::string sha256(const std::filesystem::path& file);

}  // namespace raudo
