// AVX-512 F/BW/VL/DQ without VNNI (Skylake-X): products of bytes by vpmaddubsw and vpmaddwd, as in avx2.h.
#pragma once

#include "simd/avx512_vectors.h"

namespace clarion::simd {

inline __m512i broadcast_quad(const uint8_t* quad) {
    int32_t q;
    std::memcpy(&q, quad, 4);
    return _mm512_set1_epi32(q);
}

// vpmaddubsw adds two products u8 * s8 into 16 bits and saturates. Up to 63 * 127 * 2 products, twice: 32004,
// it fits.
template <bool wide>
struct fast_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m512i sum;

    static fast_accumulator start(int32_t initial) { return {_mm512_set1_epi32(initial)}; }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w0.v, broadcast_quad(quads)),
                                               _mm512_maddubs_epi16(w1.v, broadcast_quad(quads + 4)));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    i32x16 total() const { return {sum}; }
};

// Eight-bit weights would saturate: they are taken signed, |w - 128| <= 128, as 16-bit numbers, even and odd columns
// apart; products stay within 16 bits, and two of them too: at most 128 * 127 * 2 = 32512.
template <>
struct fast_accumulator<true> {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    __m512i sum;

    static fast_accumulator start(int32_t initial) { return {_mm512_set1_epi32(initial)}; }
    // Columns 0, 2 and 1, 3 of a quad as 16-bit pairs.
    [[gnu::always_inline]] void dot(__m512i w, const uint8_t* quad) {
        const __m512i s = _mm512_xor_si512(w, _mm512_set1_epi8(-128)), q = broadcast_quad(quad);
        const __m512i even = _mm512_mullo_epi16(_mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8),
                                                _mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8));
        const __m512i odd = _mm512_mullo_epi16(_mm512_srai_epi16(s, 8), _mm512_srai_epi16(q, 8));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_add_epi16(even, odd), _mm512_set1_epi16(1)));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        dot(w0.v, quads);
        dot(w1.v, quads + 4);
    }
    i32x16 total() const { return {sum}; }
};

inline constexpr int32_t high_limit = 32639;

// Even columns, then odd ones, as vpmaddwd wants to meet the even and the odd bytes of four weights.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    const int16_t s[4] = {static_cast<int16_t>(a[0]), static_cast<int16_t>(a[2]), static_cast<int16_t>(a[1]),
                          static_cast<int16_t>(a[3])};
    std::memcpy(quad, s, 8);
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    __m512i sum;

    static high_accumulator start(int32_t initial) { return {_mm512_set1_epi32(initial)}; }
    [[gnu::always_inline]] void dot(__m512i w, const uint8_t* quad) {
        const __m512i even = _mm512_and_si512(w, _mm512_set1_epi16(0xff)), odd = _mm512_srli_epi16(w, 8);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(even, broadcast_quad(quad)));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(odd, broadcast_quad(quad + 4)));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        dot(w0.v, quads);
        dot(w1.v, quads + 8);
    }
    i32x16 total() const { return {sum}; }
};

// As in avx512vnni_products.h; but products take four instructions where VNNI has one, and a module with as many of these
// would be larger than any should be.
inline constexpr int live_groups = 8, live_groups_high = 4;

// Accumulators, float sums, a few weights and products share 32 registers.
inline constexpr int tile_fast = 8, tile_high = 8, tile_f32 = 12;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: as
// fast_accumulator does them, with enough independent sums to hide their latency.
inline double multiply_burst(int rounds, int32_t* keep) {
    __m512i w = _mm512_set1_epi8(3), q = _mm512_set1_epi8(5);
    const __m512i ones = _mm512_set1_epi16(1);
    __m512i sums[12];
    for (auto& s : sums) s = _mm512_setzero_si512();
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+v"(w), "+v"(q));  // a new product each time, as far as the compiler knows
            const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w, q), _mm512_maddubs_epi16(q, w));
            s = _mm512_add_epi32(s, _mm512_madd_epi16(pairs, ones));
        }
    __m512i sum = sums[0];
    for (int i = 1; i < 12; ++i) sum = _mm512_xor_si512(sum, sums[i]);
    *keep = _mm512_reduce_add_epi32(sum);
    return 12.0 * 128.0 * rounds;
}

}  // namespace clarion::simd
