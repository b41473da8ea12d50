#include "sha256.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

namespace raudo {
namespace {

constexpr std::size_t block_bytes = 64;
constexpr std::size_t chunk_bytes = 1 << 20;

// FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of primes.
constexpr std::array<std::uint32_t, 64> constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t value, unsigned count) {
    return value >> count | value << (32U - count);
}

class Digest {
public:
    void update(const std::uint8_t* blocks, std::size_t count) {
        for (; count > 0; --count, blocks += block_bytes) {
            mix(blocks);
        }
    }

    std::string hex() const {
        constexpr auto digits = "0123456789abcdef";
        std::string text;
        for (const std::uint32_t word : state_) {
            for (unsigned shift = 32; shift > 0; shift -= 4) {
                text += digits[word >> (shift - 4) & 15U];
            }
        }
        return text;
    }

private:
    void mix(const std::uint8_t* block) {
        std::array<std::uint32_t, 64> w{};
        for (std::size_t i = 0; i < 16; ++i) {
            const std::uint8_t* b = block + 4 * i;
            w[i] = std::uint32_t{b[0]} << 24U | std::uint32_t{b[1]} << 16U |
                   std::uint32_t{b[2]} << 8U | b[3];
        }
        for (std::size_t i = 16; i < 64; ++i) {
            const auto s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3U;
            const auto s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10U;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state_;
        for (std::size_t i = 0; i < 64; ++i) {
            const auto s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
            const auto t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i];
            const auto s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
            const auto t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const std::array<std::uint32_t, 8> mixed = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < mixed.size(); ++i) {
            state_[i] += mixed[i];
        }
    }

    // FIPS 180-4, 5.3.3.
    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

}  // namespace

std::string sha256(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return sha256(stream);
}

std::string sha256(std::istream& stream) {
    if (!stream) {
        return {};
    }
    Digest digest;
    std::vector<std::uint8_t> chunk(chunk_bytes + 2 * block_bytes);
    std::uint64_t total = 0;
    std::size_t rest = 0;
    while (stream.read(reinterpret_cast<char*>(chunk.data()), chunk_bytes) || stream.gcount() > 0) {
        const auto count = static_cast<std::size_t>(stream.gcount());
        total += count;
        digest.update(chunk.data(), count / block_bytes);
        rest = count % block_bytes;
        std::memmove(chunk.data(), chunk.data() + (count - rest), rest);
    }
    if (stream.bad()) {
        return {};
    }
    const std::size_t blocks = rest + 9 <= block_bytes ? 1 : 2;
    std::memset(chunk.data() + rest, 0, blocks * block_bytes - rest);
    chunk[rest] = 0x80;
    for (std::size_t i = 0; i < 8; ++i) {
        chunk[blocks * block_bytes - 1 - i] = static_cast<std::uint8_t>(total * 8 >> 8 * i);
    }
    digest.update(chunk.data(), blocks);
    return digest.hex();
}

}  // namespace raudo
