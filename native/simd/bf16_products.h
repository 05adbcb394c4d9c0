// BF16 weights by vdpbf16ps, as they lie in a file, with activations that are rounded to BF16 too. Products are exact, and
// sums are floats; the instruction takes subnormal numbers for zero.
//
// Lanes are pairs of columns, as they are single columns in kernels/float_product.h. A sum is 16 lanes, each over every 16th
// pair, in order, and the tree of reduce_add, for any number of rows and tokens: K/32 + 4 additions follow one another.
#pragma once

#include "simd/avx512_vectors.h"
#include "simd/tile.h"

namespace clarion::simd {

inline void store_bf16(uint16_t* p, f32x16 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)));
}

// R rows with T tokens: sums[16 t + r]. Only the first tokens fetch ahead.
template <int R, int T, typename Fetch>
void dot_pairs(Rows16 rows, int64_t n_cols, const std::byte* const* tokens, const Fetch* fetch, float* sums) {
    __m512 total[R * T];
#pragma GCC unroll 24
    for (int i = 0; i < R * T; ++i) total[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < n_cols; k += 32) {
        const int64_t left = n_cols - k;
        const __mmask32 columns = left < 32 ? (1u << left) - 1 : ~0u;
        __m512i w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
            w[r] = _mm512_maskz_loadu_epi16(columns, rows.base + r * rows.stride + 2 * k);
        if (fetch != nullptr)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                prefetch(fetch->first + r * rows.stride + 2 * k);
                prefetch(fetch->last + r * rows.stride + 2 * k);
            }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const __m512i x = _mm512_maskz_loadu_epi16(columns, tokens[t] + 2 * k);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
                total[R * t + r] = _mm512_dpbf16_ps(total[R * t + r], reinterpret_cast<__m512bh>(w[r]),
                                                    reinterpret_cast<__m512bh>(x));
        }
    }
    __m512 done[R * T];  // in memory, where `total` would be all along if this loop read it
#pragma GCC unroll 24
    for (int i = 0; i < R * T; ++i) done[i] = total[i];
    for (int i = 0; i < R * T; ++i) sums[16 * (i / R) + i % R] = reduce_add({done[i]});
}

template <typename Fetch>
void multiply_bf16(Rows16 all, int64_t n_cols, const std::byte* const* tokens, int64_t n_tokens, Fetch fetch,
                   float* sums) {
    constexpr int R = 4, T = 4;  // sums, the weights of R rows and an activation: 21 of 32 registers
    for (int r = 0; r < 16; r += R, fetch.advance(R * all.stride)) {
        const Rows16 rows{all.base + r * all.stride, all.stride};
        int64_t t = 0;
        for (; t + T <= n_tokens; t += T)
            dot_pairs<R, T>(rows, n_cols, tokens + t, t == 0 ? &fetch : nullptr, sums + 16 * t + r);
        for (; t < n_tokens; ++t)
            dot_pairs<R, 1>(rows, n_cols, tokens + t, t == 0 ? &fetch : nullptr, sums + 16 * t + r);
    }
}

}  // namespace clarion::simd
