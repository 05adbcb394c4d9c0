// Q8_0: 32 weights in 34 bytes.  d: f16 | q: 32 signed bytes.  weight = d * q
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q8_0 {
    static constexpr int id = 8;
    static constexpr const char* name = "Q8_0";
    static constexpr int block = 32, bytes = 34;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 128, largest = 255;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_signed_bytes(panel, at + 2, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        *scale = f16_at(block);
        for (int i = 0; i < 32; ++i) u[i] = block[2 + i] ^ 0x80;
    }
};

}  // namespace clarion
