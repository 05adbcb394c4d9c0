// Products of bytes of any AArch64 processor: 16 bits wide, and added in pairs to 32 bits.
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
    // One quad, which may have -128: then two products do not fit.
    [[gnu::always_inline]] void dot(u8x64 w, const uint8_t* quad) {
        int32_t four;
        std::memcpy(&four, quad, 4);
        const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int i = 0; i < 4; ++i) {
            const int8x16_t s = vreinterpretq_s8_u8(veorq_u8(w.v[i], vdupq_n_u8(0x80)));
            sum[2 * i] = vpadalq_s16(sum[2 * i], vmull_s8(vget_low_s8(s), vget_low_s8(q)));
            sum[2 * i + 1] = vpadalq_s16(sum[2 * i + 1], vmull_high_s8(s, q));
        }
    }
    i32x16 total() const {
        return each<i32x16>([&](int i) { return vpaddq_s32(sum[2 * i], sum[2 * i + 1]); });
    }
};
template <bool wide>
using fast_accumulator = fast_sums;

}  // namespace clarion::simd
