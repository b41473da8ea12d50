#pragma once

#include <filesystem>
#include <string>

namespace raudo {

/// Returns the hex SHA-256 of a file (FIPS 180-4); empty where the file cannot be read.
std::string sha256(const std::filesystem::path& file);

}  // namespace raudo
