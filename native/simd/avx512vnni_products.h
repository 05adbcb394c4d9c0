// AVX-512 F/BW/VL/DQ + VNNI: vpdpbusd multiplies 16 rows with a broadcast quad.
#pragma once

#include "simd/avx512_vectors.h"
#include "simd/byte_quads.h"

namespace clarion::simd {

// sum[r] += w[r] . quad, the broadcast being part of the instruction: compilers make it one of its own, and then a loop
// of products is bound by how many instructions a cycle begins.
[[gnu::always_inline]] inline __m512i dot_quad(__m512i sum, __m512i w, const uint8_t* quad) {
    using Quad [[gnu::may_alias]] = int32_t;
    __asm__("vpdpbusd %[quad]%{1to16%}, %[w], %[sum]"
            : [sum] "+v"(sum)
            : [w] "v"(w), [quad] "m"(*reinterpret_cast<const Quad*>(quad)));
    return sum;
}

struct fast_sums {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m512i sum;

    static fast_sums start(int32_t initial) { return {_mm512_set1_epi32(initial)}; }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        sum = dot_quad(sum, w0.v, quads);
        sum = dot_quad(sum, w1.v, quads + 4);
    }
    i32x16 total() const { return {sum}; }
};
template <bool wide>
using fast_accumulator = fast_sums;

inline constexpr int32_t high_limit = 32639;

inline void encode_quads(uint8_t* quads, i32x16 a) {
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(a.v, _mm512_set1_epi32(128)), 8);
    const __m128i upper = _mm512_cvtepi32_epi8(high), lower = _mm512_cvtepi32_epi8(a.v);
    auto* out = reinterpret_cast<__m128i*>(quads);
    _mm_storeu_si128(out, _mm_unpacklo_epi32(upper, lower));
    _mm_storeu_si128(out + 1, _mm_unpackhi_epi32(upper, lower));
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    __m512i upper, lower;

    static high_accumulator start(int32_t initial) {
        return {_mm512_setzero_si512(), _mm512_set1_epi32(initial)};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        upper = dot_quad(upper, w0.v, quads);
        lower = dot_quad(lower, w0.v, quads + 4);
        upper = dot_quad(upper, w1.v, quads + 8);
        lower = dot_quad(lower, w1.v, quads + 12);
    }
    i32x16 total() const { return {_mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower)}; }
};

// Groups of columns whose sums stay in registers beside what a panel decoder needs: one token is multiplied
// straight from a decoder with no more of them. 0: vectors are loops here, and rows are decoded instead.
inline constexpr int live_groups = 16;
inline constexpr int live_groups_high = 16;  // with 16-bit activations

}  // namespace clarion::simd
