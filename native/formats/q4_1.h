// Q4_1: 32 weights in 20 bytes.  d: f16 | m: f16 | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31.
// weight = d * q + m
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q4_1 {
    static constexpr int id = 3;
    static constexpr const char* name = "Q4_1";
    static constexpr int block = 32, bytes = 20;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 0, largest = 15;
    static constexpr bool has_min = true;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
        first_pairs(panel, blocks, bytes, scale, neg_min);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_nibbles(panel, at + 4, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min) {
        *scale = f16_at(block);
        *neg_min = f16_at(block + 2);
        unpack_nibbles<16>(block + 4, u);
    }
};

}  // namespace clarion
