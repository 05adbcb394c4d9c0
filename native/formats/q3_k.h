// Q3_K: 256 weights in 110 bytes.  h: 32 bytes | q: 64 bytes | s: 12 bytes | d: f16.  Columns lie in q as
// unpack_pairs takes them; bit k of h[i] is the third bit of column 32 k + i. Each 16 columns share a scale of
// six bits: four in s[0..7], low nibbles first; two in s[8..11], lowest first.
// weight = d * (scale - 32) * (u - 4)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q3_K {
    static constexpr int id = 11;
    static constexpr const char* name = "Q3_K";
    static constexpr int block = 256, bytes = 110;
    static constexpr int group = 16;
    static constexpr int32_t offset = 4;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        const float d = f16_at(block + 108);
        const uint8_t* s = block + 96;
        for (int g = 0; g < 16; ++g) {
            const int bits = (s[g % 8] >> 4 * (g / 8) & 15) | (s[8 + g % 4] >> 2 * (g / 4) & 3) << 4;
            scale[g] = d * static_cast<float>(bits - 32);
        }
        unpack_pairs(block + 32, u);
        for (int k = 0; k < 8; ++k)
            for (int i = 0; i < 32; ++i) u[32 * k + i] |= static_cast<uint8_t>((block[i] >> k & 1) << 2);
    }
};

}  // namespace clarion
