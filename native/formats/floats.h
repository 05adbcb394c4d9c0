// What the float formats share: 16 columns of 16 rows at a time, through a 16 x 16 transposition.
#pragma once

#include "formats/format.h"

namespace clarion::floats {

// read(p, first, n) gives columns first .. first+n-1 of the row at p as f32x16, zeros beyond n.
template <typename Read>
void decode(const uint8_t* const rows[16], int64_t n, float* tile, Read read) {
    alignas(64) float block[16][16];
    const uint8_t* block_rows[16];
    for (int r = 0; r < 16; ++r) block_rows[r] = reinterpret_cast<const uint8_t*>(block[r]);
    for (int64_t k = 0; k < n; k += 16) {
        const int columns = static_cast<int>(n - k < 16 ? n - k : 16);
        for (int r = 0; r < 16; ++r) simd::store(block[r], read(rows[r], k, columns));
        for (int part = 0; part < 4 && 4 * part < columns; ++part) {
            simd::u8x64 out[4];
            simd::transpose_16(block_rows, 16 * part, out);
            for (int c = 0; c < 4 && 4 * part + c < columns; ++c)
                simd::store_bytes(tile + 16 * (k + 4 * part + c), out[c]);
        }
    }
}

// n 16-bit elements, zeros behind them.
inline void first_u16(const uint8_t* p, int n, uint16_t out[16]) {
    std::memset(out, 0, 32);
    std::memcpy(out, p, 2 * static_cast<size_t>(n));
}

}  // namespace clarion::floats
