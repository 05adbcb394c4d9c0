// IQ1_M: 256 weights in 56 bytes.  q: 32 bytes | h: 16 bytes | s: 4 times u16.  As IQ1_S, but each 8 columns
// have a nibble of h, three bits of their index and the sign of their shift; each 16 columns a scale of three
// bits in s. The upper four bits of s[0..3], lowest first, are d: f16.
#pragma once

#include "formats/iq1_s.h"

namespace clarion {

struct IQ1_M {
    static constexpr int id = 29;
    static constexpr const char* name = "IQ1_M";
    static constexpr int block = 256, bytes = 56;
    static constexpr int group = 16;
    static constexpr int32_t offset = 9;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const uint8_t *h = block + 32, *s = block + 48;
        uint16_t half = 0;
        for (int i = 0; i < 4; ++i) half |= static_cast<uint16_t>(load_u16(s + 2 * i) >> 12 << 4 * i);
        const float d = simd::f16_to_f32(half) * 0.125f;
        for (int g = 0; g < 16; ++g) {
            const int bits = load_u16(s + g / 4 * 2) >> 3 * (g % 4) & 7;
            scale[g] = d * static_cast<float>(2 * bits + 1);
            for (int i = 0; i < 2; ++i) {
                const int nibble = h[g] >> 4 * i;
                IQ1_S::put(block[2 * g + i] | (nibble & 7) << 8, nibble & 8, u + 16 * g + 8 * i);
            }
        }
    }
};

}  // namespace clarion
