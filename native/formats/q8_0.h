// Q8_0: 32 weights in 34 bytes.  d: f16 | q: 32 signed bytes.  weight = d * q
#pragma once

#include "formats/format.h"

namespace clarion::q8_0 {

inline void decode(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) {
    gather_f16(rows, 0, 34, blocks, tile.scale);
    const simd::u8x64 sign = simd::set1_u8(0x80);
    for (int64_t b = 0; b < blocks; ++b)
        for (int h = 0; h < 2; ++h) {
            simd::u8x64 q[4];
            simd::transpose_16(rows, 34 * b + 2 + 16 * h, q);
            for (int c = 0; c < 4; ++c)
                simd::store_bytes(tile.u + 64 * (8 * b + 4 * h + c), simd::bit_xor(q[c], sign));
        }
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t b = 0; b < n / 32; ++b, row += 34) {
        const float d = f16_at(row);
        for (int j = 0; j < 32; ++j) x[32 * b + j] = d * static_cast<float>(static_cast<int8_t>(row[2 + j]));
    }
}

inline constexpr Format format{.id = 8,
                               .name = "Q8_0",
                               .block = 32,
                               .bytes = 34,
                               .group = 32,
                               .offset = 128,
                               .wide = true,
                               .decode = decode,
                               .dequantize = dequantize};

}  // namespace clarion::q8_0
