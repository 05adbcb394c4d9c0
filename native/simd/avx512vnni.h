// AVX-512 F/BW/VL/DQ + VNNI: vpdpbusd multiplies 16 rows with a broadcast quad.
#pragma once

#include "simd/avx512_vectors.h"

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

// a = 256 * upper + lower with both in [-128, 127]: four upper bytes, then four lower ones.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    for (int j = 0; j < 4; ++j) {
        const auto lower = static_cast<int8_t>(a[j]);
        quad[j] = static_cast<uint8_t>((a[j] - lower) >> 8);
        quad[4 + j] = static_cast<uint8_t>(lower);
    }
}

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

// Accumulators, float sums and a few weights share 32 registers.
inline constexpr int tile_fast = 12, tile_high = 8, tile_f32 = 12;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can. 24 accumulators
// in one block of assembly: latency 5 x 2 a cycle needs 10, and a compiler would move them.
inline double multiply_burst(int rounds, int32_t* keep) {
    const double products = 24.0 * 64.0 * rounds;
    const __m512i w = _mm512_set1_epi8(3), a = _mm512_set1_epi8(5);
    __m512i sum;
    __asm__ volatile(
        "vmovdqa64 %[w], %%zmm30\n\t"
        "vmovdqa64 %[a], %%zmm31\n\t"
        "1:\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm0\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm1\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm2\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm3\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm4\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm5\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm6\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm7\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm8\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm9\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm10\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm11\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm12\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm13\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm14\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm15\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm16\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm17\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm18\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm19\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm20\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm21\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm22\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm23\n\t"
        "dec %[rounds]\n\t"
        "jnz 1b\n\t"
        "vmovdqa64 %%zmm0, %[sum]\n\t"
        : [sum] "=v"(sum), [rounds] "+r"(rounds)
        : [w] "v"(w), [a] "v"(a)
        : "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
          "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21",
          "zmm22", "zmm23", "zmm30", "zmm31");
    *keep = _mm512_reduce_add_epi32(sum);
    return products;
}

}  // namespace clarion::simd
