// Q4_K: 256 weights in 144 bytes.  d, dmin, 8 scales and minima: 16 bytes (k_scales.h) | q: 128 bytes; of
// each 32 bytes the low nibbles are one group of 32 columns and the high nibbles the next.  weight = d * s *
// q - dmin * m
#pragma once

#include "formats/k_scales.h"

namespace clarion {

struct Q4_K {
    static constexpr int id = 12;
    static constexpr const char* name = "Q4_K";
    static constexpr int block = 256, bytes = 144;
    static constexpr int group = 32, live = 2;
    static constexpr int32_t offset = 0, largest = 15;
    static constexpr bool has_min = true;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
        k_scales::decode(panel, blocks, bytes, scale, neg_min);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int pair = 0; pair < 4; ++pair) {
            sink.begin();
            unrolled<2>([&]<int half>() CLARION_INLINE {
                typename Sink::Vector q[4];
                load_quads(panel, at + 16 + 32 * pair + 16 * half, q);
                unrolled<2>([&]<int c>() CLARION_INLINE {
                    constexpr int quad = 4 * half + 2 * c;
                    put_nibbles2<quad, quad + 8>(q[2 * c], q[2 * c + 1], sink);
                });
            });
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min) {
        k_scales::unpack(block, scale, neg_min);
        for (int pair = 0; pair < 4; ++pair) unpack_nibbles<32>(block + 16 + 32 * pair, u + 64 * pair);
    }
};

}  // namespace clarion
