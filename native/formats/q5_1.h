// Q5_1: 32 weights in 24 bytes.  d: f16 | m: f16 | h and q as in Q5_0.  weight = d * u + m
#pragma once

#include "formats/q5_0.h"

namespace clarion {

struct Q5_1 {
    static constexpr int id = 7;
    static constexpr const char* name = "Q5_1";
    static constexpr int block = 32, bytes = 24;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 0, largest = 31;
    static constexpr bool has_min = true;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
        first_pairs(panel, blocks, bytes, scale, neg_min);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        Q5_0::put_fives(panel, at + 4, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min) {
        *scale = f16_at(block);
        *neg_min = f16_at(block + 2);
        Q5_0::unpack_fives(block + 4, u);
    }
};

}  // namespace clarion
