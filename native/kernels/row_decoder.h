// Tiles and floats made of rows.
#pragma once

#include <cstdint>

#include "formats/entry.h"
#include "simd/simd.h"

namespace clarion {

template <typename F>
void unpack_blocks(const uint8_t* row, int64_t blocks, uint8_t* u, float* scale, float* neg_min) {
    constexpr int64_t groups = F::block / F::group;
    for (int64_t b = 0; b < blocks; ++b)
        F::unpack(row + b * F::bytes, u + b * F::block, scale + b * groups, neg_min + b * groups);
}

// A tile of 16 rows by Format::unpack.
void decode_rows(const Format& format, simd::Rows16 rows, int64_t blocks, const Tile& tile);
// The first n weights of a row of any format, and of row `lane` of a panel; n is a multiple of the block.
void dequantize(const Format& format, const uint8_t* row, int64_t n, float* x);
void dequantize_lane(const Format& format, const uint8_t* panel, int lane, int64_t n, float* x);

}  // namespace clarion
