// Activations as the products read them.
//
// An encoded row of K activations (K a multiple of 32, or padded to one with zeros) holds, for blocks of 32
// columns x = scale * a with integer a:
//
//     quads    K/4 quads of four activations: 4 bytes each (fast, |a| <= 127), 8 bytes (high, |a| <= 32639);
//              each instruction set has its own order of the bytes within a quad (simd::encode_quad)
//     scale    float [K/32]
//     fsum32   float [K/32]   scale * sum of a: what a weight's minimum is multiplied with
//     sum32    int32 [K/32]   sum of a: removes the offset of weights that are stored unsigned
//     fsum16   float [K/16]   both for formats whose scales cover 16 columns
//     sum16    int32 [K/16]
//
// A block that holds an infinity or a NaN has a NaN scale, so whatever it touches is NaN and nothing else is.
// Kind::f32 is the row itself, Kind::bf16 the row rounded to numbers of 16 bits, zeros behind them.
#pragma once

#include <cstdint>

#include "machine/op.h"

namespace clarion {

// Columns that share one activation scale, in every encoding.
inline constexpr int64_t activation_block = 32;

struct EncodedLayout {
    int64_t padded;                                      // columns, rounded up to whole blocks
    int64_t scale, fsum32, sum32, fsum16, sum16, bytes;  // offsets from the row's start, and its size

    EncodedLayout(Kind kind, int64_t width)
        : padded((width + 31) / 32 * 32),
          scale(kind == Kind::high ? 2 * padded : padded),
          fsum32(scale + padded / 8),
          sum32(fsum32 + padded / 8),
          fsum16(sum32 + padded / 8),
          sum16(fsum16 + padded / 4),
          bytes((sum16 + padded / 4 + 63) / 64 * 64) {}

    // Where the sums of a format's groups are, of 32 columns or 16.
    constexpr int64_t sum(int64_t group) const { return group == 32 ? sum32 : sum16; }
    constexpr int64_t fsum(int64_t group) const { return group == 32 ? fsum32 : fsum16; }
};

// Bytes from one row of a buffer to the next: an odd number of cache lines. Products write some columns of row after row,
// and rows of a power of two bytes would share a few sets of the cache.
int64_t row_bytes(Kind kind, int64_t width);

}  // namespace clarion
