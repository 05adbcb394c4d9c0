// Q8_1: 32 weights in 36 bytes.  d: f16 | d times the sum of q, not needed here: f16 | q: 32 signed bytes.
// weight = d * q
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q8_1 {
    static constexpr int id = 9;
    static constexpr const char* name = "Q8_1";
    static constexpr int block = 32, bytes = 36;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 128, largest = 255;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        for (int64_t b = 0; b < blocks; ++b)
            simd::store(scale + 16 * b, simd::f16_low(simd::load_bytes(panel + 16 * bytes * b)));
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_signed_bytes(panel, at + 4, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        *scale = f16_at(block);
        for (int i = 0; i < 32; ++i) u[i] = block[4 + i] ^ 0x80;
    }
};

}  // namespace clarion
