// What Q4_K and Q5_K share: a block of 256 weights begins with d: f16 | dmin: f16 | 12 bytes that hold eight
// 6-bit scales s and eight 6-bit minima m:
//     j < 4     s = b[j] & 63                               m = b[4+j] & 63
//     j >= 4    s = b[4+j] & 15 | b[j-4] >> 6 << 4          m = b[4+j] >> 4 | b[j] >> 6 << 4
// The scale of group j is d * s, its minimum dmin * m. Together 16 bytes: one transposition for 16 rows.
#pragma once

#include "formats/format.h"

namespace clarion::k_scales {

// The four bytes of v, times factor, to four consecutive groups.
inline void store_four(float* to, simd::i32x16 v, simd::f32x16 factor) {
    simd::store(to, simd::mul(simd::to_f32(byte_of<0>(v)), factor));
    simd::store(to + 16, simd::mul(simd::to_f32(byte_of<1>(v)), factor));
    simd::store(to + 32, simd::mul(simd::to_f32(byte_of<2>(v)), factor));
    simd::store(to + 48, simd::mul(simd::to_f32(byte_of<3>(v)), factor));
}

inline void decode(const uint8_t* panel, int64_t blocks, int64_t block_bytes, float* scale, float* neg_min) {
    const simd::i32x16 low6 = simd::set1(int32_t{0x3f3f3f3f}), low4 = simd::set1(int32_t{0x0f0f0f0f}),
                       bits45 = simd::set1(int32_t{0x30303030});
    for (int64_t b = 0; b < blocks; ++b, scale += 128, neg_min += 128) {
        simd::u8x64 header[4];
        load_quads(panel, b * block_bytes, header);
        const simd::f32x16 d = simd::f16_low(header[0]);
        const simd::f32x16 neg_dmin = simd::sub(simd::zero(), simd::f16_high(header[0]));
        const simd::i32x16 b0 = simd::as_i32(header[1]), b4 = simd::as_i32(header[2]),
                           b8 = simd::as_i32(header[3]);
        store_four(scale, simd::bit_and(b0, low6), d);
        store_four(neg_min, simd::bit_and(b4, low6), neg_dmin);
        const simd::i32x16 s =
            simd::bit_or(simd::bit_and(b8, low4), simd::bit_and(simd::shift_right<2>(b0), bits45));
        const simd::i32x16 m = simd::bit_or(simd::bit_and(simd::shift_right<4>(b8), low4),
                                            simd::bit_and(simd::shift_right<2>(b4), bits45));
        store_four(scale + 64, s, d);
        store_four(neg_min + 64, m, neg_dmin);
    }
}

// One block, in plain C++.
inline void unpack(const uint8_t* block, float* scale, float* neg_min) {
    const float d = f16_at(block), dmin = f16_at(block + 2);
    const uint8_t* b = block + 4;
    for (int j = 0; j < 4; ++j) {
        scale[j] = d * static_cast<float>(b[j] & 63);
        neg_min[j] = -(dmin * static_cast<float>(b[4 + j] & 63));
        scale[4 + j] = d * static_cast<float>((b[8 + j] & 15) | b[j] >> 6 << 4);
        neg_min[4 + j] = -(dmin * static_cast<float>(b[8 + j] >> 4 | b[4 + j] >> 6 << 4));
    }
}

}  // namespace clarion::k_scales
