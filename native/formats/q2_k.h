// Q2_K: 256 weights in 84 bytes.  s: 16 bytes | q: 64 bytes | d: f16 | dmin: f16.  Columns lie in q as
// unpack_pairs takes them; each 16 share a byte of s: scale in the low nibble, minimum in the high one.
// weight = d * (s & 15) * q - dmin * (s >> 4)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q2_K {
    static constexpr int id = 10;
    static constexpr const char* name = "Q2_K";
    static constexpr int block = 256, bytes = 84;
    static constexpr int group = 16;
    static constexpr int32_t offset = 0;
    static constexpr bool has_min = true, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min) {
        const float d = f16_at(block + 80), dmin = f16_at(block + 82);
        uint8_t s[16];  // apart from what is written, or the loop could not be one of vectors
        std::memcpy(s, block, 16);
        for (int g = 0; g < 16; ++g) {
            scale[g] = d * static_cast<float>(s[g] & 15);
            neg_min[g] = -(dmin * static_cast<float>(s[g] >> 4));
        }
        unpack_pairs(block + 16, u);
    }
};

}  // namespace clarion
