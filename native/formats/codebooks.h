// Codebooks as the decoders want them: unsigned bytes, a format's offset already added. Unpacked when the
// module is loaded from data that codebooks.py takes from the gguf package.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codebooks_data.h"

namespace clarion {

struct Codebooks {
    uint64_t iq1[2048];  // 8 * value + 10
    uint64_t iq2_xxs[256], iq2_xs[512], iq2_s[1024];
    uint32_t iq3_xxs[256], iq3_s[512];
    // The same without an offset.
    uint64_t iq2_xxs_magnitudes[256], iq2_xs_magnitudes[512], iq2_s_magnitudes[1024];
    uint32_t iq3_xxs_magnitudes[256], iq3_s_magnitudes[512];
    alignas(16) uint8_t iq3_xxs_levels[16] = {}, iq3_s_levels[16] = {};  // what four packed bits stand for
    alignas(16) uint8_t iq4[16], e2m1[16];
    float half_e4m3[256];      // half of a float of 4 and 3 bits whose sign does not count
    uint64_t bits[256];        // byte j is 0xff where bit j of the index is set
    uint64_t even_signs[128];  // the same with an eighth bit that makes the number of set bits even

    Codebooks() {
        namespace data = codebook_data;
        unpack(data::iq1, data::iq1_levels, 8, 10, iq1);
        unpack(data::iq2_xxs, data::iq2_xxs_levels, 1, 64, iq2_xxs);
        unpack(data::iq2_xxs, data::iq2_xxs_levels, 1, 0, iq2_xxs_magnitudes);
        unpack(data::iq2_xs, data::iq2_xs_levels, 1, 64, iq2_xs);
        unpack(data::iq2_xs, data::iq2_xs_levels, 1, 0, iq2_xs_magnitudes);
        unpack(data::iq2_s, data::iq2_s_levels, 1, 64, iq2_s);
        unpack(data::iq2_s, data::iq2_s_levels, 1, 0, iq2_s_magnitudes);
        unpack(data::iq3_xxs, data::iq3_xxs_levels, 1, 64, iq3_xxs);
        unpack(data::iq3_xxs, data::iq3_xxs_levels, 1, 0, iq3_xxs_magnitudes);
        unpack(data::iq3_s, data::iq3_s_levels, 1, 16, iq3_s);
        unpack(data::iq3_s, data::iq3_s_levels, 1, 0, iq3_s_magnitudes);
        unpack_levels(data::iq3_xxs_levels, 64, iq3_xxs_levels);
        unpack_levels(data::iq3_s_levels, 16, iq3_s_levels);
        for (int i = 0; i < 16; ++i) {
            iq4[i] = static_cast<uint8_t>(data::iq4[i] + 127);
            e2m1[i] = static_cast<uint8_t>(data::e2m1[i] + 12);
        }
        for (int i = 0; i < 256; ++i) {
            half_e4m3[i] = half_of(static_cast<uint32_t>(i));
            bits[i] = bytes_of(i);
        }
        for (int i = 0; i < 128; ++i) even_signs[i] = bits[i | __builtin_parity(i) << 7];
    }

  private:
    // out = add + scale * level, byte by byte.
    template <size_t packed_bytes, size_t n_levels, typename Entry, size_t n>
    static void unpack(const uint8_t (&packed)[packed_bytes], const int8_t (&levels)[n_levels], int scale,
                       int add, Entry (&out)[n]) {
        constexpr size_t per_byte = sizeof(out) / packed_bytes, bits_each = 8 / per_byte;
        static_assert(per_byte * packed_bytes == sizeof(out) && n_levels <= size_t{1} << bits_each);
        auto* u = reinterpret_cast<uint8_t*>(out);
        for (size_t i = 0; i < sizeof(out); ++i) {
            const int code = packed[i / per_byte] >> bits_each * (i % per_byte) & ((1 << bits_each) - 1);
            u[i] = static_cast<uint8_t>(add + scale * levels[code]);
        }
    }
    template <size_t n>
    static void unpack_levels(const int8_t (&levels)[n], int add, uint8_t (&out)[16]) {
        static_assert(n <= 16);
        for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(add + levels[i]);
    }
    static float half_of(uint32_t s) {
        const uint32_t exponent = s >> 3 & 15, mantissa = s & 7;
        if (s == 0x7f) return 0.0f;  // a NaN, which nothing writes
        if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
        return std::bit_cast<float>((exponent + 119) << 23 | mantissa << 20);
    }
    static uint64_t bytes_of(int set) {
        uint8_t u[8];
        for (int j = 0; j < 8; ++j) u[j] = (set >> j & 1) != 0 ? 0xff : 0;
        uint64_t v;
        std::memcpy(&v, u, 8);
        return v;
    }
};

// Defined in codebooks.cpp, which only modules that read codebooks hold. Hidden: its address is known when a module is linked.
[[gnu::visibility("hidden")]] extern const Codebooks codebooks;

inline constexpr uint64_t every_byte = 0x0101010101010101;

// u = offset + magnitude where a byte of `negative` is 0, offset - magnitude where it is 0xff. The offset is a
// power of two, larger than any magnitude: then ~u + 1 within the bits below 2 * offset is the other sign, and
// no byte carries into the next.
template <int offset, typename Entry>
void put_signed(uint8_t* u, Entry positive, Entry negative) {
    static_assert((offset & (offset - 1)) == 0);
    const auto flip = static_cast<Entry>(every_byte * (2 * offset - 1)), one = static_cast<Entry>(every_byte);
    const auto v = static_cast<Entry>((positive ^ (negative & flip)) + (negative & one));
    std::memcpy(u, &v, sizeof(v));
}

}  // namespace clarion
