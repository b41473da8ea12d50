#include <utility>

#include "raudo/detector.hpp"

namespace raudo {

Error::Error(const std::string& message, std::string hint)
    : std::runtime_error(message), hint_(std::move(hint)) {}

}  // namespace raudo
