// Q2_0: 64 weights in 18 bytes.  d: f16 | q: 16 bytes, two bits for each column, lowest first.
// weight = d * (q - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q2_0 {
    static constexpr int id = 42;
    static constexpr const char* name = "Q2_0";
    static constexpr int block = 64, bytes = 18;
    static constexpr int group = 32;
    static constexpr int32_t offset = 1;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<2>(f16_at(block), scale);
        for (int i = 0; i < 16; ++i) {
            for (int j = 0; j < 4; ++j) u[4 * i + j] = block[2 + i] >> 2 * j & 3;
        }
    }
};

}  // namespace clarion
