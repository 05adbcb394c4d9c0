// Q6_K: 256 weights in 210 bytes.  l: 128 bytes | h: 64 bytes | s: 16 signed bytes | d: f16.
// Each half of the block (128 columns, 64 bytes of l, 32 of h) holds four runs of 32 columns: run k takes its
// low four bits from l[32 * (k % 2) + i], the low nibble for k < 2 and the high one else, and its high two
// from bits 2k of h[i]. Each 16 columns share a scale.  weight = d * s * (u - 32)
#pragma once

#include "formats/format.h"

namespace clarion::q6_k {

inline void decode(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) {
    const simd::u8x64 nibble = simd::set1_u8(15), high2 = simd::set1_u8(0x30);
    for (int64_t b = 0; b < blocks; ++b) {
        simd::u8x64 s[4], end[4];
        simd::transpose_16(rows, 210 * b + 192, s);
        simd::transpose_16(rows, 210 * b + 194, end);  // its last two bytes are d
        const simd::f32x16 d = simd::f16_high(end[3]);
        for (int c = 0; c < 4; ++c) {
            float* scale = tile.scale + 16 * (16 * b + 4 * c);
            const simd::i32x16 v = simd::as_i32(s[c]);
            simd::store(scale, simd::mul(simd::to_f32(signed_byte_of<0>(v)), d));
            simd::store(scale + 16, simd::mul(simd::to_f32(signed_byte_of<1>(v)), d));
            simd::store(scale + 32, simd::mul(simd::to_f32(signed_byte_of<2>(v)), d));
            simd::store(scale + 48, simd::mul(simd::to_f32(signed_byte_of<3>(v)), d));
        }
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 2; ++i) {  // columns 16*i .. +15 of each run
                simd::u8x64 l0[4], l1[4], h[4];
                simd::transpose_16(rows, 210 * b + 64 * half + 16 * i, l0);
                simd::transpose_16(rows, 210 * b + 64 * half + 32 + 16 * i, l1);
                simd::transpose_16(rows, 210 * b + 128 + 32 * half + 16 * i, h);
                uint8_t* u = tile.u + 64 * (64 * b + 32 * half + 4 * i);
                for (int c = 0; c < 4; ++c, u += 64) {
                    using simd::bit_and, simd::bit_or;
                    simd::store_bytes(
                        u, bit_or(bit_and(l0[c], nibble), bit_and(simd::shift_left_u8<4>(h[c]), high2)));
                    simd::store_bytes(u + 512, bit_or(bit_and(l1[c], nibble),
                                                      bit_and(simd::shift_left_u8<2>(h[c]), high2)));
                    simd::store_bytes(u + 1024, bit_or(simd::shift_right_u8<4>(l0[c]), bit_and(h[c], high2)));
                    simd::store_bytes(u + 1536, bit_or(simd::shift_right_u8<4>(l1[c]),
                                                       bit_and(simd::shift_right_u8<2>(h[c]), high2)));
                }
            }
    }
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t b = 0; b < n / 256; ++b, row += 210, x += 256) {
        const float d = f16_at(row + 208);
        for (int col = 0; col < 256; ++col) {
            const int half = col / 128, run = col % 128 / 32, i = col % 32;
            const int low = row[64 * half + 32 * (run % 2) + i] >> 4 * (run / 2) & 15;
            const int high = row[128 + 32 * half + i] >> 2 * run & 3;
            const float scale = d * static_cast<float>(static_cast<int8_t>(row[192 + col / 16]));
            x[col] = scale * static_cast<float>((low | high << 4) - 32);
        }
    }
}

inline constexpr Format format{.id = 14,
                               .name = "Q6_K",
                               .block = 256,
                               .bytes = 210,
                               .group = 16,
                               .offset = 32,
                               .decode = decode,
                               .dequantize = dequantize};

}  // namespace clarion::q6_k
