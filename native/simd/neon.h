// Advanced SIMD of any AArch64 processor: products of bytes are 16 bits wide, and added in pairs to 32 bits.
#pragma once

#include "simd/neon_vectors.h"

namespace clarion::simd {

// Groups of columns whose sums stay in registers beside what a panel decoder needs: up to sixteen each, of 32.
inline constexpr int live_groups = 1;
inline constexpr int live_groups_high = 1;  // with 16-bit activations

// Weights are taken signed, |w - 128| <= 128: two products, at most 128 * 127 * 2 = 32512, fit into 16 bits. Each row has
// two sums, of its columns 0, 1 and 2, 3.
struct fast_sums {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    int32x4_t sum[8];

    static fast_sums start(int32_t initial) {
        const int32x4_t first = {initial, 0, initial, 0};
        return {{first, first, first, first, first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const int32x2_t q = vreinterpret_s32_u8(vld1_u8(quads));
        const int8x16_t q0 = vreinterpretq_s8_s32(vdupq_lane_s32(q, 0));
        const int8x16_t q1 = vreinterpretq_s8_s32(vdupq_lane_s32(q, 1));
        for (int i = 0; i < 4; ++i) {
            const int8x16_t s0 = vreinterpretq_s8_u8(veorq_u8(w0.v[i], vdupq_n_u8(0x80)));
            const int8x16_t s1 = vreinterpretq_s8_u8(veorq_u8(w1.v[i], vdupq_n_u8(0x80)));
            const int16x8_t low =
                vmlal_s8(vmull_s8(vget_low_s8(s0), vget_low_s8(q0)), vget_low_s8(s1), vget_low_s8(q1));
            sum[2 * i] = vpadalq_s16(sum[2 * i], low);
            sum[2 * i + 1] = vpadalq_s16(sum[2 * i + 1], vmlal_high_s8(vmull_high_s8(s0, q0), s1, q1));
        }
    }
    i32x16 total() const {
        return each<i32x16>([&](int i) { return vpaddq_s32(sum[2 * i], sum[2 * i + 1]); });
    }
};
template <bool wide>
using fast_accumulator = fast_sums;

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
