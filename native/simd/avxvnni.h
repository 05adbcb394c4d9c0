// AVX2 with AVX-VNNI (Alder Lake, Zen 5 and later): vpdpbusd multiplies eight rows with a broadcast quad.
#pragma once

#include "simd/avx2_vectors.h"
#include "simd/byte_quads.h"

namespace clarion::simd {

struct fast_sums {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m256i a, b;

    static fast_sums start(int32_t initial) {
        return {_mm256_set1_epi32(initial), _mm256_set1_epi32(initial)};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m256i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4);
        a = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(a, w0.a, q0), w1.a, q1);
        b = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(b, w0.b, q0), w1.b, q1);
    }
    i32x16 total() const { return {a, b}; }
};
template <bool wide>
using fast_accumulator = fast_sums;

inline constexpr int32_t high_limit = 32639;

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    fast_sums upper, lower;

    static high_accumulator start(int32_t initial) {
        return {fast_sums::start(0), fast_sums::start(initial)};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m256i upper0 = broadcast_quad(quads), lower0 = broadcast_quad(quads + 4);
        const __m256i upper1 = broadcast_quad(quads + 8), lower1 = broadcast_quad(quads + 12);
        upper.a = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(upper.a, w0.a, upper0), w1.a, upper1);
        upper.b = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(upper.b, w0.b, upper0), w1.b, upper1);
        lower.a = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(lower.a, w0.a, lower0), w1.a, lower1);
        lower.b = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(lower.b, w0.b, lower0), w1.b, lower1);
    }
    i32x16 total() const {
        return {_mm256_add_epi32(_mm256_slli_epi32(upper.a, 8), lower.a),
                _mm256_add_epi32(_mm256_slli_epi32(upper.b, 8), lower.b)};
    }
};

// Two or four registers a token for its sums, of 16.
inline constexpr int tile_fast = 4, tile_high = 2, tile_f32 = 4;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: 12 independent
// sums, for a latency of five at two a cycle.
inline double multiply_burst(int rounds, int32_t* keep) {
    __m256i w = _mm256_set1_epi8(3), q = _mm256_set1_epi8(5);
    __m256i sums[12];
    for (auto& s : sums) s = _mm256_setzero_si256();
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+x"(w), "+x"(q));  // a new product each time, as far as the compiler knows
            s = _mm256_dpbusd_avx_epi32(s, w, q);
        }
    __m256i sum = sums[0];
    for (int i = 1; i < 12; ++i) sum = _mm256_xor_si256(sum, sums[i]);
    *keep = _mm256_extract_epi32(sum, 0);
    return 12.0 * 32.0 * rounds;
}

}  // namespace clarion::simd
