// Q4_K: 256 weights in 144 bytes.  d, dmin, 8 scales and minima: 16 bytes (k_scales.h) | q: 128 bytes; of
// each 32 bytes the low nibbles are one group of 32 columns and the high nibbles the next.  weight = d * s *
// q - dmin * m
#pragma once

#include "formats/k_scales.h"

namespace clarion::q4_k {

inline void decode(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) {
    const simd::u8x64 nibble = simd::set1_u8(15);
    for (int64_t b = 0; b < blocks; ++b) {
        k_scales::decode(rows, 144 * b, tile.scale + 128 * b, tile.neg_min + 128 * b);
        for (int half = 0; half < 8; ++half) {  // 16 bytes: half of two groups
            simd::u8x64 q[4];
            simd::transpose_16(rows, 144 * b + 16 + 16 * half, q);
            uint8_t* u = tile.u + 64 * (64 * b + 16 * (half / 2) + 4 * (half % 2));
            for (int c = 0; c < 4; ++c) {
                simd::store_bytes(u + 64 * c, simd::bit_and(q[c], nibble));
                simd::store_bytes(u + 64 * (8 + c), simd::shift_right_u8<4>(q[c]));
            }
        }
    }
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t b = 0; b < n / 256; ++b, row += 144)
        for (int j = 0; j < 8; ++j, x += 32) {
            float scale, min;
            k_scales::scale_and_min(row, j, scale, min);
            const uint8_t* q = row + 16 + 32 * (j / 2);
            for (int i = 0; i < 32; ++i) x[i] = scale * static_cast<float>(q[i] >> 4 * (j % 2) & 15) - min;
        }
}

inline constexpr Format format{.id = 12,
                               .name = "Q4_K",
                               .block = 256,
                               .bytes = 144,
                               .group = 32,
                               .has_min = true,
                               .decode = decode,
                               .dequantize = dequantize};

}  // namespace clarion::q4_k
