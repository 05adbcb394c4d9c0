// Q5_K: 256 weights in 176 bytes.  d, dmin, 8 scales and minima: 16 bytes (k_scales.h) | h: 32 bytes | q: 128
// bytes. q as in Q4_K; bit j of h[i] is the fifth bit of column i of group j.  weight = d * s * u - dmin * m
#pragma once

#include "formats/k_scales.h"

namespace clarion::q5_k {

inline void decode(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) {
    const simd::u8x64 nibble = simd::set1_u8(15), fifth = simd::set1_u8(16);
    for (int64_t b = 0; b < blocks; ++b) {
        k_scales::decode(rows, 176 * b, tile.scale + 128 * b, tile.neg_min + 128 * b);
        for (int half = 0; half < 2; ++half) {  // columns 16*half .. +15 of every group
            simd::u8x64 h[4];
            simd::transpose_16(rows, 176 * b + 16 + 16 * half, h);
            for (int pair = 0; pair < 4; ++pair) {  // groups 2*pair and 2*pair+1
                simd::u8x64 q[4];
                simd::transpose_16(rows, 176 * b + 48 + 32 * pair + 16 * half, q);
                uint8_t* u = tile.u + 64 * (64 * b + 16 * pair + 4 * half);
                for (int c = 0; c < 4; ++c) {
                    const simd::u8x64 low = simd::bit_and(simd::shift_left_u8<4>(h[c]), fifth);
                    const simd::u8x64 high = simd::bit_and(simd::shift_left_u8<3>(h[c]), fifth);
                    simd::store_bytes(u + 64 * c, simd::bit_or(simd::bit_and(q[c], nibble), low));
                    simd::store_bytes(u + 64 * (8 + c), simd::bit_or(simd::shift_right_u8<4>(q[c]), high));
                    h[c] = simd::shift_right_u8<2>(h[c]);
                }
            }
        }
    }
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t b = 0; b < n / 256; ++b, row += 176)
        for (int j = 0; j < 8; ++j, x += 32) {
            float scale, min;
            k_scales::scale_and_min(row, j, scale, min);
            const uint8_t *h = row + 16, *q = row + 48 + 32 * (j / 2);
            for (int i = 0; i < 32; ++i)
                x[i] = scale * static_cast<float>((q[i] >> 4 * (j % 2) & 15) | (h[i] >> j & 1) << 4) - min;
        }
}

inline constexpr Format format{.id = 13,
                               .name = "Q5_K",
                               .block = 256,
                               .bytes = 176,
                               .group = 32,
                               .has_min = true,
                               .decode = decode,
                               .dequantize = dequantize};

}  // namespace clarion::q5_k
