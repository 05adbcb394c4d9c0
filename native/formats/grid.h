// What the panel decoders of the codebook formats share. Columns 8 i .. 8 i + 7 of a row are an entry of a codebook, or
// two of half the size, and eight flags, which say of each byte whether it is changed: to (byte ^ flip) + more, a minus
// or a shift of its weight. A format's decoder reduces a block of 16 rows to that:
//
//     using Entry          of its codebook: 8 bytes, or 4
//     uint8_t flip, more   what flags do
//     constexpr const Entry* grid()
//     simd::PackedCodebook packed()   the same, of entries of 4 bytes
//     static void codes(const uint8_t* panel, int64_t at, const Codes&);   the block at `at` of each row
//
// and kernels/grid_product.h looks up, multiplies, or makes a tile, for all of them. Blocks are of 256 columns.
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Codes {
    uint32_t* index;  // [32][16]: of an entry, or of two in 16 bits each, the first in the low ones
    int32_t* flags;   // [8][16]: those of 32 columns
    float* scale;     // [256 / group][16]
};

// Which flags mean a minus, where `offset` was added to all bytes of a codebook: 2 * offset - byte.
constexpr uint8_t minus_flip = 0xff;
constexpr uint8_t minus_more(int offset) { return static_cast<uint8_t>(2 * offset + 1); }

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

// The indices of four entries: bytes of q, and above each what high.operator()<i>() has.
template <typename High>
[[gnu::always_inline]] inline void store_indices(uint32_t* index, simd::i32x16 q, const High& high) {
    unrolled<4>([&]<int i>() CLARION_INLINE {
        store_index(index + 16 * i, simd::bit_or(byte_of<i>(q), high.template operator()<i>()));
    });
}
inline void store_indices(uint32_t* index, simd::i32x16 q) {
    unrolled<4>([&]<int i>() CLARION_INLINE { store_index(index + 16 * i, byte_of<i>(q)); });
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
    const simd::u8x64 s = simd::as_u8(sevens);
    const simd::u8x64 folded = simd::bit_and(simd::bit_xor(s, simd::shift_right_u8<4>(s)), simd::set1_u8(15));
    return simd::as_i32(simd::bit_or(s, simd::look_up(simd::repeat_16(odd), folded)));
}

// 32 bits: four times seven flags, and a scale of four bits, of which scale = factor * (1/2 + bits).
inline void put_sevens(simd::i32x16 v, simd::f32x16 factor, int32_t* flags, float* scale) {
    const simd::i32x16 low = simd::bit_or(shifted_bits<0>(v, 0x7f), shifted_bits<1>(v, 0x7f00));
    const simd::i32x16 high = simd::bit_or(shifted_bits<2>(v, 0x7f0000), shifted_bits<3>(v, 0x7f000000));
    simd::store(flags, make_even(simd::bit_or(low, high)));
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
