// AArch64 with dot products of signed bytes (FEAT_DotProd: Neoverse N1, Cortex-A76, Apple M1 and later).
#pragma once

#include "simd/byte_quads.h"
#include "simd/neon_vectors.h"

namespace clarion::simd {

// Groups of columns whose sums stay in registers beside what a panel decoder needs: up to eight each, of 32.
inline constexpr int live_groups = 2;
inline constexpr int live_groups_high = 2;  // with 16-bit activations

// Weights are taken signed, w - 128.
inline int8x16_t signed_weights(uint8x16_t w) { return vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80))); }

struct fast_sums {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    int32x4_t sum[4];

    static fast_sums start(int32_t initial) {
        const int32x4_t first = vdupq_n_s32(initial);
        return {{first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const int8x8_t q = vreinterpret_s8_u8(vld1_u8(quads));
        for (int i = 0; i < 4; ++i) {
            sum[i] = vdotq_lane_s32(sum[i], signed_weights(w0.v[i]), q, 0);
            sum[i] = vdotq_lane_s32(sum[i], signed_weights(w1.v[i]), q, 1);
        }
    }
    i32x16 total() const { return {{sum[0], sum[1], sum[2], sum[3]}}; }
};
template <bool wide>
using fast_accumulator = fast_sums;

struct high_accumulator {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 8;
    int32x4_t upper[4], lower[4];

    static high_accumulator start(int32_t initial) {
        const int32x4_t first = vdupq_n_s32(initial), none = vdupq_n_s32(0);
        return {{none, none, none, none}, {first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const int8x16_t q = vreinterpretq_s8_u8(vld1q_u8(quads));
        for (int i = 0; i < 4; ++i) {
            const int8x16_t s0 = signed_weights(w0.v[i]), s1 = signed_weights(w1.v[i]);
            upper[i] = vdotq_laneq_s32(upper[i], s0, q, 0);
            lower[i] = vdotq_laneq_s32(lower[i], s0, q, 1);
            upper[i] = vdotq_laneq_s32(upper[i], s1, q, 2);
            lower[i] = vdotq_laneq_s32(lower[i], s1, q, 3);
        }
    }
    i32x16 total() const {
        return each<i32x16>([&](int i) { return vaddq_s32(vshlq_n_s32(upper[i], 8), lower[i]); });
    }
};

// Four, eight and four registers a token for its sums, of 32.
inline constexpr int tile_fast = 4, tile_high = 2, tile_f32 = 4;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: 16 independent
// sums, for a latency of up to four at four a cycle.
inline double multiply_burst(int rounds, int32_t* keep) {
    int8x16_t w = vdupq_n_s8(3), q = vdupq_n_s8(5);
    int32x4_t sums[16];
    for (auto& s : sums) s = vdupq_n_s32(0);
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+w"(w), "+w"(q));  // a new product each time, as far as the compiler knows
            s = vdotq_s32(s, w, q);
        }
    int32x4_t sum = sums[0];
    for (int i = 1; i < 16; ++i) sum = veorq_s32(sum, sums[i]);
    *keep = vgetq_lane_s32(sum, 0);
    return 16.0 * 16.0 * rounds;
}

}  // namespace clarion::simd
