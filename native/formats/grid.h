// What the panel decoders of the codebook formats share. Columns 8 i .. 8 i + 7 of a row are an entry of a codebook, or
// two of half the size, and eight flags: which of its weights are negative, or whether all eight are shifted. A format's decoder
// reduces a block of 16 rows to that:
//
//     using Entry          of its codebook: 8 bytes, or 4
//     uint8_t shift        what flags add to all eight bytes of an entry; 0 where they are signs
//     constexpr const Entry* grid()
//     constexpr const Entry* magnitudes()   the same without the offset, where flags are signs
//     simd::PackedCodebook packed()   the same, of entries of 4 bytes
//     static void codes(const uint8_t* panel, int64_t at, const Codes&);   the block at `at` of each row
//
// and kernels/grid_product.h looks up, multiplies, or makes a tile, for all of them. Blocks are of 256 columns.
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Codes {
    // Indices of two entries, in 16 bits each, the first in the low ones: [16][16], of columns 8 i .. 8 i + 7 for i = 0 and 2,
    // 1 and 3, 4 and 6, ...; or, of entries of 4 bytes, [32][16], each two behind one another.
    uint32_t* index;
    int32_t* flags;  // [8][16]: those of 32 columns
    float* scale;    // [256 / group][16]
};

inline void store_index(uint32_t* index, simd::i32x16 v) {
    simd::store(reinterpret_cast<int32_t*>(index), v);
}

// v shifted left by n, right where n is negative.
template <int n>
simd::i32x16 shifted(simd::i32x16 v) {
    if constexpr (n >= 0)
        return simd::shift_left<n>(v);
    else
        return simd::shift_right<-n>(v);
}
template <int n>
simd::i32x16 shifted_bits(simd::i32x16 v, int32_t mask) {
    return simd::bit_and(shifted<n>(v), simd::set1(mask));
}

// The indices of four entries: bytes of q.
inline void store_indices(uint32_t* index, simd::i32x16 q) {
    store_index(index, shifted_bits<0>(q, 0xff00ff));
    store_index(index + 16, shifted_bits<-8>(q, 0xff00ff));
}
// The same, and above them the bits in `mask` of h, of h >> apart, and so on.
template <int apart, int mask>
void store_indices(uint32_t* index, simd::i32x16 q, simd::i32x16 h) {
    const simd::i32x16 even =
        simd::bit_or(shifted_bits<8>(h, mask << 8), shifted_bits<24 - 2 * apart>(h, mask << 24));
    const simd::i32x16 odd =
        simd::bit_or(shifted_bits<8 - apart>(h, mask << 8), shifted_bits<24 - 3 * apart>(h, mask << 24));
    store_index(index, simd::bit_or(shifted_bits<0>(q, 0xff00ff), even));
    store_index(index + 16, simd::bit_or(shifted_bits<-8>(q, 0xff00ff), odd));
}

// Two pairs of indices of small entries, bytes of q and above them what high.operator()<pair>() has.
template <typename High>
[[gnu::always_inline]] inline void store_pairs(uint32_t* index, simd::i32x16 q, const High& high) {
    unrolled<2>([&]<int i>() CLARION_INLINE {
        const simd::i32x16 pair =
            simd::bit_or(shifted_bits<-16 * i>(q, 0xff), shifted_bits<8 - 16 * i>(q, 0xff0000));
        store_index(index + 16 * i, simd::bit_or(pair, high.template operator()<i>()));
    });
}

// Seven flags in each byte, and an eighth that makes their number even.
inline simd::i32x16 make_even(simd::i32x16 sevens) {
    alignas(16) static constexpr uint8_t odd[16] = {0,    0x80, 0x80, 0,    0x80, 0,    0,    0x80,
                                                    0x80, 0,    0,    0x80, 0,    0x80, 0x80, 0};
    const simd::u8x64 s = simd::as_u8(sevens), high = simd::as_u8(simd::shift_right<4>(sevens));
    const simd::u8x64 folded = simd::bit_and(simd::bit_xor(s, high), simd::set1_u8(15));
    return simd::as_i32(simd::bit_or(s, simd::look_up(simd::repeat_16(odd), folded)));
}

// 32 bits: four times seven flags, and a scale of four bits, of which scale = factor * (1/2 + bits).
inline void put_sevens(simd::i32x16 v, simd::f32x16 factor, int32_t* flags, float* scale) {
    // Two sevens to the low bits of each half; then the upper one of them moves a bit up, by being added to itself.
    const simd::i32x16 pairs = simd::bit_or(shifted_bits<0>(v, 0x3fff), shifted_bits<2>(v, 0x3fff0000));
    simd::store(flags, make_even(simd::add(pairs, shifted_bits<0>(pairs, 0x3f803f80))));
    simd::store(scale,
                simd::mul(factor, simd::add(simd::set1(0.5f), simd::to_f32(simd::shift_right<28>(v)))));
}

// Four bytes of two nibbles s: eight times scale = factor * (1/2 + s).
inline void put_nibble_scales(simd::i32x16 v, simd::f32x16 factor, float* scale) {
    unrolled<8>([&]<int i>() CLARION_INLINE {
        const simd::f32x16 s = simd::to_f32(shifted_bits<-4 * i>(v, 15));
        simd::store(scale + 16 * i, simd::mul(factor, simd::add(simd::set1(0.5f), s)));
    });
}

// The 16-bit float that a block begins with, times a power of two.
inline simd::f32x16 first_f16(const uint8_t* panel, int64_t at, float times) {
    return simd::mul(first_f16(panel, at), simd::set1(times));
}

}  // namespace clarion
