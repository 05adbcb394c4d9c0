// Q4_0: 32 weights in 18 bytes.  d: f16 | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31.
// weight = d * (q - 8)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q4_0 {
    static constexpr int id = 2;
    static constexpr const char* name = "Q4_0";
    static constexpr int block = 32, bytes = 18;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 8, largest = 15;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_nibbles(panel, at + 2, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        *scale = f16_at(block);
        unpack_nibbles<16>(block + 2, u);
    }
};

}  // namespace clarion
