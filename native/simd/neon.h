// Advanced SIMD of any AArch64 processor.
#pragma once

#include "simd/neon_smull.h"

namespace clarion::simd {

// Four activations of 16 bits, in order.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    vst1_u8(quad, vreinterpret_u8_s16(vmovn_s32(vld1q_s32(a))));
}

// Each row has four sums, one for each column of a quad.
struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    int32x4_t sum[16];

    static high_accumulator start(int32_t initial) {
        high_accumulator r;
        for (int32x4_t& s : r.sum) s = int32x4_t{initial, 0, 0, 0};
        return r;
    }
    [[gnu::always_inline]] void dot(u8x64 w, const uint8_t* quad) {
        const int16x4_t four = vreinterpret_s16_u8(vld1_u8(quad));
        const int16x8_t q = vcombine_s16(four, four);
        for (int i = 0; i < 4; ++i) {
            const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(w.v[i])));
            const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(w.v[i]));
            sum[4 * i] = vmlal_s16(sum[4 * i], vget_low_s16(low), vget_low_s16(q));
            sum[4 * i + 1] = vmlal_high_s16(sum[4 * i + 1], low, q);
            sum[4 * i + 2] = vmlal_s16(sum[4 * i + 2], vget_low_s16(high), vget_low_s16(q));
            sum[4 * i + 3] = vmlal_high_s16(sum[4 * i + 3], high, q);
        }
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        dot(w0, quads);
        dot(w1, quads + 8);
    }
    i32x16 total() const {
        return each<i32x16>([&](int i) {
            return vpaddq_s32(vpaddq_s32(sum[4 * i], sum[4 * i + 1]),
                              vpaddq_s32(sum[4 * i + 2], sum[4 * i + 3]));
        });
    }
};

// Eight, sixteen and four registers a token for its sums, of 32.
inline constexpr int tile_fast = 2, tile_high = 1, tile_f32 = 4;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can.
inline double multiply_burst(int rounds, int32_t* keep) {
    int8x16_t w = vdupq_n_s8(3), q = vdupq_n_s8(5);
    int32x4_t sums[8];
    for (auto& s : sums) s = vdupq_n_s32(0);
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+w"(w), "+w"(q));  // a new product each time, as far as the compiler knows
            s = vpadalq_s16(
                s, vmlal_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), vget_low_s8(q), vget_low_s8(w)));
        }
    int32x4_t sum = sums[0];
    for (int i = 1; i < 8; ++i) sum = veorq_s32(sum, sums[i]);
    *keep = vgetq_lane_s32(sum, 0);
    return 8.0 * 16.0 * rounds;
}

}  // namespace clarion::simd
