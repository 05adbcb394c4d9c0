// A weight format is a decoder: it knows its block's bytes and nothing of the products made with them.
//
// Weights are taken as panels of 16 rows. A decoder turns some blocks of a panel into a tile in L1, in which
// the lanes of a vector are rows; the products (kernels/linear) are written once over tiles.
//
//   integer formats   weight = scale * (u - offset) + neg_min, u an unsigned byte
//                     tile: u [cols/4][16 rows][4], scale [cols/group][16], neg_min [cols/group][16] if
//                     has_min
//   float formats     tile: weight [cols][16 rows]
#pragma once

#include <cstdint>

#include "simd/simd.h"

namespace clarion {

struct Tile {
    uint8_t* u;
    float* scale;
    float* neg_min;
};

struct Format {
    int id;  // GGUF type id
    const char* name;
    int64_t block;  // weights in a block
    int64_t bytes;  // bytes in a block
    // Integer formats:
    int group = 0;         // columns that share a scale, 16 or 32; 0: a float format
    int32_t offset = 0;    // what unsigned storage added to each weight
    bool has_min = false;  // whether a group has a minimum
    bool wide = false;     // whether u may exceed 63
    void (*decode)(const uint8_t* const rows[16], int64_t blocks, const Tile& tile) = nullptr;
    // Float formats: n columns, any number.
    void (*decode_f32)(const uint8_t* const rows[16], int64_t n, float* tile) = nullptr;
    // Any format: n weights of one row from a block's start, n a multiple of `block`.
    void (*dequantize)(const uint8_t* row, int64_t n, float* x) = nullptr;

    int64_t row_bytes(int64_t cols) const { return cols / block * bytes; }
};

// The table of formats: one line each in formats/formats.cpp.
const Format* find_format(int id);  // null when unknown
const Format* formats_begin();
const Format* formats_end();

// ---- for decoders
// ---------------------------------------------------------------------------------------------

inline uint16_t load_u16(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, 2);
    return h;
}
inline float f16_at(const uint8_t* p) { return simd::f16_to_f32(load_u16(p)); }

// The 16-bit float at rows[r] + offset + b * stride of every row: out[b][r]. All halves are stored before any
// vector is loaded, since a load that spans several recent narrow stores waits for them.
inline void gather_f16(const uint8_t* const rows[16], int64_t offset, int64_t stride, int64_t blocks,
                       float* out) {
    constexpr int64_t most = 16;
    alignas(64) uint16_t halves[most * 16];
    for (int64_t first = 0; first < blocks; first += most) {
        const int64_t n = blocks - first < most ? blocks - first : most;
        for (int r = 0; r < 16; ++r) {
            const uint8_t* p = rows[r] + offset + first * stride;
            for (int64_t b = 0; b < n; ++b) halves[b * 16 + r] = load_u16(p + b * stride);
        }
        for (int64_t b = 0; b < n; ++b) simd::store(out + (first + b) * 16, simd::load_f16(halves + b * 16));
    }
}

// Byte j of each row's four, unsigned or signed.
template <int j>
simd::i32x16 byte_of(simd::i32x16 v) {
    return simd::bit_and(simd::shift_right<8 * j>(v), simd::set1(int32_t{0xff}));
}
template <int j>
simd::i32x16 signed_byte_of(simd::i32x16 v) {
    return simd::shift_right_signed<24>(simd::shift_left<24 - 8 * j>(v));
}

// The four bytes of v, times factor, to four consecutive groups of a tile.
inline void store_scales(float* tile, simd::i32x16 v, simd::f32x16 factor) {
    simd::store(tile, simd::mul(simd::to_f32(byte_of<0>(v)), factor));
    simd::store(tile + 16, simd::mul(simd::to_f32(byte_of<1>(v)), factor));
    simd::store(tile + 32, simd::mul(simd::to_f32(byte_of<2>(v)), factor));
    simd::store(tile + 48, simd::mul(simd::to_f32(byte_of<3>(v)), factor));
}

}  // namespace clarion
