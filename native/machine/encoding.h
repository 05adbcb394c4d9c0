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
//     n_wide   int32          fast: how many octets follow
//     wide     Octet          fast: eight columns that have 16 bits and a scale of their own. The a of their block are zero
//                             there, and its scale is that of the other 24 columns. Its fsum are of both
//
// A `fast` row has an octet in those blocks where it pays, which is decided by the row alone, in float32. For its B blocks b,
// m[b] being the largest |x| of the block and n[b] the largest outside the first of its octets that has m[b]:
//
//     m[b]^2 - n[b]^2 > 12 / B * S,  S the sum of all m[b]^2: 16 sums of every 16th block, added in a tree
//
// As an error is that of the scale, this takes octets that have more than 12/B of the row's error, fewer than B/12 of them.
//
// A block that holds an infinity or a NaN has a NaN scale, so whatever it touches is NaN and nothing else is.
// Kind::f32 is the row itself, Kind::bf16 the row rounded to numbers of 16 bits, zeros behind them.
#pragma once

#include <cstdint>

#include "machine/op.h"

namespace clarion {

// Columns that share one activation scale, in every encoding.
inline constexpr int64_t activation_block = 32;

// Eight neighbouring columns: quads 2 * place and 2 * place + 1 of the row, as in a row of Kind::high.
struct Octet {
    int32_t place;
    int32_t token;  // for products (kernels/octets.h)
    float scale;
    int32_t sum;
    uint8_t quads[16];
};

// The share of a row's error that an octet must have, times the number of blocks.
inline constexpr int64_t octet_share = 12;

struct EncodedLayout {
    int64_t padded;                               // columns, rounded up to whole blocks
    int64_t scale, fsum32, sum32, fsum16, sum16;  // offsets from the row's start
    int64_t n_wide, wide, most_wide;              // two offsets, and how many octets there is room for
    int64_t bytes;

    EncodedLayout(Kind kind, int64_t width)
        : padded((width + 31) / 32 * 32),
          scale(kind == Kind::high ? 2 * padded : padded),
          fsum32(scale + padded / 8),
          sum32(fsum32 + padded / 8),
          fsum16(sum32 + padded / 8),
          sum16(fsum16 + padded / 4),
          n_wide(sum16 + padded / 4),
          wide(n_wide + (kind == Kind::fast ? 4 : 0)),
          most_wide(kind == Kind::fast ? padded / 32 / octet_share : 0),
          bytes((wide + most_wide * static_cast<int64_t>(sizeof(Octet)) + 63) / 64 * 64) {}

    // Where the sums of a format's groups are, of 32 columns or 16.
    constexpr int64_t sum(int64_t group) const { return group == 32 ? sum32 : sum16; }
    constexpr int64_t fsum(int64_t group) const { return group == 32 ? fsum32 : fsum16; }
};

// Bytes from one row of a buffer to the next: an odd number of cache lines. Products write some columns of row after row,
// and rows of a power of two bytes would share a few sets of the cache.
int64_t row_bytes(Kind kind, int64_t width);

}  // namespace clarion
