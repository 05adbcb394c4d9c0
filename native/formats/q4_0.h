// Q4_0: 32 weights in 18 bytes.  d: f16 | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31.
// weight = d * (q - 8)
#pragma once

#include "formats/format.h"

namespace clarion::q4_0 {

inline void decode(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) {
    gather_f16(rows, 0, 18, blocks, tile.scale);
    const simd::u8x64 nibble = simd::set1_u8(15);
    for (int64_t b = 0; b < blocks; ++b) {
        simd::u8x64 q[4];
        simd::transpose_16(rows, 18 * b + 2, q);
        for (int c = 0; c < 4; ++c) {
            simd::store_bytes(tile.u + 64 * (8 * b + c), simd::bit_and(q[c], nibble));
            simd::store_bytes(tile.u + 64 * (8 * b + 4 + c), simd::shift_right_u8<4>(q[c]));
        }
    }
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t b = 0; b < n / 32; ++b, row += 18) {
        const float d = f16_at(row);
        for (int j = 0; j < 16; ++j) {
            x[32 * b + j] = d * static_cast<float>((row[2 + j] & 15) - 8);
            x[32 * b + 16 + j] = d * static_cast<float>((row[2 + j] >> 4) - 8);
        }
    }
}

inline constexpr Format format{.id = 2,
                               .name = "Q4_0",
                               .block = 32,
                               .bytes = 18,
                               .group = 32,
                               .offset = 8,
                               .decode = decode,
                               .dequantize = dequantize};

}  // namespace clarion::q4_0
