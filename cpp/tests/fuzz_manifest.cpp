/// libFuzzer target: whatever a manifest holds, it is read or refused with an Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "manifest.hpp"
#include "raudo/detector.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        raudo::parse_manifest({reinterpret_cast<const char*>(data), size});
    } catch (const raudo::Error&) {
        return 0;
    }
    return 0;
}
