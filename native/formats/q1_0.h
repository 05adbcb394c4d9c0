// Q1_0: 128 weights in 18 bytes.  d: f16 | 16 bytes, a bit for each column, lowest first.
// weight = bit ? d : -d
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Q1_0 {
    static constexpr int id = 41;
    static constexpr const char* name = "Q1_0";
    static constexpr int block = 128, bytes = 18;
    static constexpr int group = 32;
    static constexpr int32_t offset = 1;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<4>(f16_at(block), scale);
        for (int i = 0; i < 16; ++i) {
            const uint64_t v = codebooks.bits[block[2 + i]] & every_byte << 1;
            std::memcpy(u + 8 * i, &v, 8);
        }
    }
};

}  // namespace clarion
