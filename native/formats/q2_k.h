// Q2_K: 256 weights in 84 bytes.  s: 16 bytes | q: 64 bytes | d: f16 | dmin: f16.  Columns lie in q as
// unpack_pairs takes them; each 16 share a byte of s: scale in the low nibble, minimum in the high one.
// weight = d * (s & 15) * q - dmin * (s >> 4)
#pragma once

#include "formats/k_scales.h"

namespace clarion {

struct Q2_K {
    static constexpr int id = 10;
    static constexpr const char* name = "Q2_K";
    static constexpr int block = 256, bytes = 84;
    static constexpr int group = 16, live = 8, runs = 2;
    static constexpr int32_t offset = 0, largest = 3;
    static constexpr bool has_min = true;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
        for (int64_t b = 0; b < blocks; ++b) {
            simd::u8x64 s[4], end[4];
            load_quads(panel, bytes * b, s);
            load_quads(panel, bytes * b + 68, end);  // its last four bytes are d and dmin
            const simd::f32x16 d = simd::f16_low(end[3]);
            const simd::f32x16 neg_dmin = simd::sub(simd::zero(), simd::f16_high(end[3]));
            for (int c = 0; c < 4; ++c, scale += 64, neg_min += 64) {
                k_scales::store_four(scale, simd::as_i32(simd::bit_and(s[c], simd::set1_u8(15))), d);
                k_scales::store_four(neg_min, simd::as_i32(simd::shift_right_u8<4>(s[c])), neg_dmin);
            }
        }
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) put_pairs(panel, at + 16 + 32 * half, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min) {
        const float d = f16_at(block + 80), dmin = f16_at(block + 82);
        uint8_t s[16];  // apart from what is written, or the loop could not be one of vectors
        std::memcpy(s, block, 16);
        for (int g = 0; g < 16; ++g) {
            scale[g] = d * static_cast<float>(s[g] & 15);
            neg_min[g] = -(dmin * static_cast<float>(s[g] >> 4));
        }
        unpack_pairs(block + 16, u);
    }
};

}  // namespace clarion
