// Q5_0: 32 weights in 22 bytes.  d: f16 | h: 4 bytes | q: 16 bytes, low nibbles columns 0-15, high nibbles
// 16-31.  Bit i of h is the fifth bit of column i.  weight = d * (u - 16)
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Q5_0 {
    static constexpr int id = 6;
    static constexpr const char* name = "Q5_0";
    static constexpr int block = 32, bytes = 22;
    static constexpr int group = 32;
    static constexpr int32_t offset = 16;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        *scale = f16_at(block);
        unpack_fives(block + 2, u);
    }

    // 32 columns from h and q.
    static void unpack_fives(const uint8_t* h, uint8_t* u) {
        unpack_nibbles<16>(h + 4, u);
        for (int i = 0; i < 4; ++i) {
            uint64_t v;
            std::memcpy(&v, u + 8 * i, 8);
            v |= codebooks.bits[h[i]] & every_byte << 4;
            std::memcpy(u + 8 * i, &v, 8);
        }
    }
};

}  // namespace clarion
