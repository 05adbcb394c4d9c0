// TQ2_0: 256 ternary weights in 66 bytes.  q: 64 bytes, columns as unpack_pairs takes them | d: f16.
// weight = d * (q - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct TQ2_0 {
    static constexpr int id = 35;
    static constexpr const char* name = "TQ2_0";
    static constexpr int block = 256, bytes = 66;
    static constexpr bool odd_last = true;  // d
    static constexpr int group = 32, live = 4, runs = 2;
    static constexpr int32_t offset = 1, largest = 3;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16<8>(panel, 64, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) put_pairs(panel, at + 32 * half, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<8>(f16_at(block + 64), scale);
        unpack_pairs(block, u);
    }
};

}  // namespace clarion
