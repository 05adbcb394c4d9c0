// AArch64 with FEAT_I8MM (Neoverse V1, N2 and V2, Cortex-A710, Apple M2 and later): dot products of unsigned with
// signed bytes, and products of 2 x 8 with 8 x 2 of them.
#pragma once

#include "simd/byte_quads.h"
#include "simd/neon_vectors.h"

namespace clarion::simd {

// Groups of columns whose sums stay in registers beside what a panel decoder needs: up to eight each, of 32.
inline constexpr int live_groups = 2;
inline constexpr int live_groups_high = 2;  // with 16-bit activations

struct fast_sums {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    int32x4_t sum[4];

    static fast_sums start(int32_t initial) {
        const int32x4_t first = vdupq_n_s32(initial);
        return {{first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const int8x8_t q = vreinterpret_s8_u8(vld1_u8(quads));
        for (int i = 0; i < 4; ++i) {
            sum[i] = vusdotq_lane_s32(sum[i], w0.v[i], q, 0);
            sum[i] = vusdotq_lane_s32(sum[i], w1.v[i], q, 1);
        }
    }
    i32x16 total() const { return {{sum[0], sum[1], sum[2], sum[3]}}; }
};
template <bool wide>
using fast_accumulator = fast_sums;

// One 2 x 2 product makes the upper and the lower sums of two rows: twice the work of a dot product. Pairing the two
// quads of a row costs as many permutations, which many tokens share.
struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    int32x4_t sum[8];  // of rows 2i and 2i+1: upper, lower, upper, lower

    static high_accumulator start(int32_t initial) {
        const int32x4_t first = {0, initial, 0, initial};
        return {{first, first, first, first, first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const int32x4_t q = vreinterpretq_s32_u8(vld1q_u8(quads));  // upper, lower, upper, lower
        const int8x16_t both = vreinterpretq_s8_s32(vuzp1q_s32(q, vextq_s32(q, q, 1)));
        for (int i = 0; i < 4; ++i) {
            const uint32x4_t v0 = vreinterpretq_u32_u8(w0.v[i]), v1 = vreinterpretq_u32_u8(w1.v[i]);
            const uint8x16_t low = vreinterpretq_u8_u32(vzip1q_u32(v0, v1));
            const uint8x16_t high = vreinterpretq_u8_u32(vzip2q_u32(v0, v1));
            sum[2 * i] = vusmmlaq_s32(sum[2 * i], low, both);
            sum[2 * i + 1] = vusmmlaq_s32(sum[2 * i + 1], high, both);
        }
    }
    i32x16 total() const {
        return each<i32x16>([&](int i) {
            const int32x4_t upper = vuzp1q_s32(sum[2 * i], sum[2 * i + 1]);
            return vaddq_s32(vshlq_n_s32(upper, 8), vuzp2q_s32(sum[2 * i], sum[2 * i + 1]));
        });
    }
};

// Four, eight and four registers a token for its sums, of 32.
inline constexpr int tile_fast = 4, tile_high = 2, tile_f32 = 4;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: 16 independent
// sums, for a latency of up to four at four a cycle.
inline double multiply_burst(int rounds, int32_t* keep) {
    uint8x16_t w = vdupq_n_u8(3);
    int8x16_t q = vdupq_n_s8(5);
    int32x4_t sums[16];
    for (auto& s : sums) s = vdupq_n_s32(0);
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+w"(w), "+w"(q));  // a new product each time, as far as the compiler knows
            s = vusmmlaq_s32(s, w, q);
        }
    int32x4_t sum = sums[0];
    for (int i = 1; i < 16; ++i) sum = veorq_s32(sum, sums[i]);
    *keep = vgetq_lane_s32(sum, 0);
    return 16.0 * 32.0 * rounds;
}

}  // namespace clarion::simd
