// BF16 weights by vdpbf16ps: as they lie in a file, two columns of 16 rows with two activations, which are rounded to BF16
// too. Products are exact, and sums are floats; the instruction takes subnormal numbers for zero.
#pragma once

#include "simd/avx512_vectors.h"
#include "simd/tile.h"

namespace clarion::simd {

inline void store_bf16(uint16_t* p, f32x16 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)));
}

// sum[r] += w[r] . pair, the broadcast being part of the instruction, as in avx512vnni_products.h.
[[gnu::always_inline]] inline __m512 dot_pair(__m512 sum, __m512i w, const uint16_t* pair) {
    using Pair [[gnu::may_alias]] = int32_t;
    __asm__("vdpbf16ps %[pair]%{1to16%}, %[w], %[sum]"
            : [sum] "+v"(sum)
            : [w] "v"(w), [pair] "m"(*reinterpret_cast<const Pair*>(pair)));
    return sum;
}

// Sums of 32 columns first, then those in order. n tokens from t; B blocks advance together, because one chain of additions
// would wait for itself.
template <int n, int B>
int64_t dot_pairs(const u8x64* weights, const FloatTileProduct& p, int64_t k, int64_t t, __m512* total) {
    for (; k < p.columns && (B == 1 || k + 32 * B <= p.columns); k += 32 * B) {
        __m512 sum[B * n];
#pragma GCC unroll 24
        for (int i = 0; i < B * n; ++i) sum[i] = _mm512_setzero_ps();
        const int64_t left = p.columns - k < 32 ? p.columns - k : 32;
        for (int64_t c = 0; c < left; c += 2)
#pragma GCC unroll 24
            for (int i = 0; i < B * n; ++i) {
                const int64_t column = k + 32 * (i / n) + c;
                sum[i] = dot_pair(sum[i], weights[column / 2].v, p.token<uint16_t>(t + i % n) + column);
            }
#pragma GCC unroll 24
        for (int i = 0; i < B * n; ++i) total[i % n] = _mm512_add_ps(total[i % n], sum[i]);
    }
    return k;
}

template <int n>
void multiply_pairs(const u8x64* weights, const FloatTileProduct& p, int64_t t) {
    __m512 total[n];
#pragma GCC unroll 12
    for (int i = 0; i < n; ++i) total[i] = load(p.sums + 16 * (t + i)).v;
    int64_t k = 0;
    if constexpr (n == 1) k = dot_pairs<n, 4>(weights, p, k, t, total);
    dot_pairs<n, 1>(weights, p, k, t, total);
#pragma GCC unroll 12
    for (int i = 0; i < n; ++i) store(p.sums + 16 * (t + i), {total[i]});
}

inline void multiply_bf16(Panel panel, const FloatTileProduct& p) {
    u8x64 weights[TileProduct::most_columns / 2];
    int64_t k = 0;
    for (; k + 8 <= p.columns; k += 8) transpose_16(panel, 2 * k, weights + k / 2);
    if (k < p.columns) {
        alignas(16) uint8_t rest[16][16] = {};
        for (int r = 0; r < 16; ++r)
            std::memcpy(rest[r], panel.base + r * panel.stride + 2 * k,
                        2 * static_cast<size_t>(p.columns - k));
        transpose_16({rest[0], 16}, 0, weights + k / 2);
    }
    // Twelve sums, twelve totals, and the weights that they share.
    int64_t t = 0;
    for (; t + 12 <= p.n_tokens; t += 12) multiply_pairs<12>(weights, p, t);
    for (; t + 4 <= p.n_tokens; t += 4) multiply_pairs<4>(weights, p, t);
    for (; t < p.n_tokens; ++t) multiply_pairs<1>(weights, p, t);
}

}  // namespace clarion::simd
