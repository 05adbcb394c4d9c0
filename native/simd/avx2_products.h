// Products of a tile with four tokens at a time: two registers of sums for each, which leaves eight of 16 for weights,
// activations and products. Totals wait in memory.
//
// What bounds them is where instructions run. Two of a Zen 4's four vector pipes multiply, integers and floats, and additions
// run in all four: so everything that multiplies beside the products themselves has to be rare. vpmaddubsw adds two products
// u8 * s8 into 16 bits. As many of these as fit are added there, before vpmaddwd, with ones, widens them at once; how many
// that are follows from the format's largest weight.
#pragma once

#include <type_traits>

#include "simd/tile.h"

namespace clarion::simd {

// How many sums of two products, |a| <= 127, fit 16 bits: eight of 4-bit weights (8 * 2 * 15 * 127 = 30480), four of 5-bit
// ones (31496), two of 6-bit ones (32004).
constexpr int pairs_that_fit(int largest_weight) { return 32767 / (2 * 127 * largest_weight); }

// Activations of 8 bits, weights small enough that `fit` pairs do.
template <int fit>
struct BytePairs {
    static constexpr int steps = 1, quads_added = fit;
    static __m256i weights(__m256i w, int) { return w; }
    static __m256i multiply(__m256i w, __m256i a) { return _mm256_maddubs_epi16(w, a); }
    static __m256i add(__m256i x, __m256i y) { return _mm256_add_epi16(x, y); }
    static __m256i widen(__m256i x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }
};

// Activations of 16 bits: first the even columns of a quad, then the odd ones.
struct WordPairs {
    static constexpr int steps = 2, quads_added = 8;
    static __m256i weights(__m256i w, int odd) {
        return odd != 0 ? _mm256_srli_epi16(w, 8) : _mm256_and_si256(w, _mm256_set1_epi16(0xff));
    }
    static __m256i multiply(__m256i w, __m256i a) { return _mm256_madd_epi16(w, a); }
    static __m256i add(__m256i x, __m256i y) { return _mm256_add_epi32(x, y); }
    static __m256i widen(__m256i x) { return x; }
};

// Tokens `first` .. first + 3. Activations lie elsewhere than what belongs to them only where they are made for the purpose.
template <typename Pairs, int group>
[[gnu::noinline]] void multiply_four(const TileProduct& p, int64_t first, const std::byte* const* quads) {
    constexpr int T = 4, steps = Pairs::steps, n_steps = group / 4 * steps,
                  added = Pairs::quads_added * steps;
    const auto all = [](const std::byte* at) {
        return _mm256_broadcast_ss(reinterpret_cast<const float*>(at));
    };
    const std::byte *quad[T], *token[T];
    const int64_t apart = steps == 1 ? p.quads : 0;  // one pointer for both: registers are few
    float* sums = p.sums + 16 * first;
    __m256 total[2 * T], half[2 * T];  // half: of a pair of groups of 16, the first
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
        quad[t] = quads[t];
        token[t] = steps == 1 ? quads[t] : p.tokens[first + t];
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * T; ++i) total[i] = _mm256_loadu_ps(sums + 8 * i);
    const uint8_t* u = p.u;
    const float *scale = p.scale, *neg_min = p.neg_min;
    const __m256i unbias = _mm256_set1_epi32(-p.offset);
    const int64_t columns = p.columns, a_scale = p.a_scale - apart;
    int64_t a_sum = (neg_min == nullptr ? p.a_sum : p.a_fsum) - apart;
    for (int64_t column = 0; column < columns; column += group, u += 16 * group, scale += 16, a_sum += 4) {
        __m256i pairs[2 * T], sum[2 * T];
#pragma GCC unroll 16
        for (int i = 0; i < n_steps; ++i) {
            const uint8_t* w = u + 64 * (i / steps);
            const __m256i w0 = Pairs::weights(load_256(w), i % steps);
            const __m256i w1 = Pairs::weights(load_256(w + 32), i % steps);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const auto* at = reinterpret_cast<const uint8_t*>(quad[t] + steps * column) + 4 * i;
                const __m256i a = broadcast_quad(at);
                const __m256i p0 = Pairs::multiply(w0, a), p1 = Pairs::multiply(w1, a);
                const bool begins = i % added == 0;
                pairs[2 * t] = begins ? p0 : Pairs::add(pairs[2 * t], p0);
                pairs[2 * t + 1] = begins ? p1 : Pairs::add(pairs[2 * t + 1], p1);
            }
            if ((i + 1) % added != 0 && i + 1 != n_steps) continue;
#pragma GCC unroll 8
            for (int n = 0; n < 2 * T; ++n) {
                const __m256i wide = Pairs::widen(pairs[n]);
                sum[n] = i < added ? wide : _mm256_add_epi32(sum[n], wide);
            }
        }
        if (neg_min == nullptr) {
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const __m256i b = _mm256_mullo_epi32(_mm256_castps_si256(all(token[t] + a_sum)), unbias);
                sum[2 * t] = _mm256_add_epi32(sum[2 * t], b);
                sum[2 * t + 1] = _mm256_add_epi32(sum[2 * t + 1], b);
            }
        }
        const __m256 s0 = _mm256_loadu_ps(scale), s1 = _mm256_loadu_ps(scale + 8);
        if (group == 16 && column % 32 == 0) {
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                half[2 * t] = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[2 * t]), s0);
                half[2 * t + 1] = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[2 * t + 1]), s1);
            }
            continue;
        }
        const int64_t block = a_scale + column / 32 * 4;
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            const __m256 s = all(token[t] + block);
            const __m256 x0 = _mm256_cvtepi32_ps(sum[2 * t]), x1 = _mm256_cvtepi32_ps(sum[2 * t + 1]);
            __m256 &t0 = total[2 * t], &t1 = total[2 * t + 1];
            t0 = group == 32 ? _mm256_fmadd_ps(x0, _mm256_mul_ps(s0, s), t0)
                             : _mm256_fmadd_ps(_mm256_fmadd_ps(x0, s0, half[2 * t]), s, t0);
            t1 = group == 32 ? _mm256_fmadd_ps(x1, _mm256_mul_ps(s1, s), t1)
                             : _mm256_fmadd_ps(_mm256_fmadd_ps(x1, s1, half[2 * t + 1]), s, t1);
        }
        if (neg_min == nullptr) continue;
        for (int64_t g = 1 - 32 / group; g <= 0; ++g, neg_min += 16) {
            const __m256 m0 = _mm256_loadu_ps(neg_min), m1 = _mm256_loadu_ps(neg_min + 8);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const __m256 f = all(token[t] + a_sum + 4 * g);
                total[2 * t] = _mm256_fmadd_ps(m0, f, total[2 * t]);
                total[2 * t + 1] = _mm256_fmadd_ps(m1, f, total[2 * t + 1]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * T; ++i) _mm256_storeu_ps(sums + 8 * i, total[i]);
}

template <typename Pairs, int group>
void multiply_rows(const TileProduct& p, int64_t first) {
    const std::byte* quads[4];
    for (int t = 0; t < 4; ++t) quads[t] = p.tokens[first + t] + p.quads;
    multiply_four<Pairs, group>(p, first, quads);
}

// Weights of 8 bits: a pair of products would be too large, and a sign for each activation and weight costs more than to
// make activations of 16 bits once for 16 rows.
template <int group>
void multiply_widened(const TileProduct& p, int64_t first) {
    alignas(32) int16_t words[4][TileProduct::most_columns];
    const std::byte* quads[4];
    const __m256i even_first =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (int t = 0; t < 4; ++t) {
        const auto* bytes = reinterpret_cast<const __m128i*>(p.tokens[first + t] + p.quads);
        for (int64_t column = 0; column < p.columns; column += 16)
            store_256(words[t] + column,
                      _mm256_shuffle_epi8(_mm256_cvtepi8_epi16(_mm_loadu_si128(bytes++)), even_first));
        quads[t] = reinterpret_cast<const std::byte*>(words[t]);
    }
    multiply_four<WordPairs, group>(p, first, quads);
}

template <typename Fetch>
int64_t multiply_fours(const TileProduct& p, const Fetch& fetch,
                       void (*multiply)(const TileProduct&, int64_t)) {
    int64_t t = 0;
    for (; t + 4 <= p.n_tokens; t += 4) {
        fetch.tokens(t, t + 4);
        multiply(p, t);
    }
    return t;
}

template <bool wide, typename Fetch>
int64_t multiply_tile(const TileProduct& p, const Fetch& fetch, std::type_identity<fast_accumulator<wide>>) {
    const int fit = pairs_that_fit(p.largest);
    if (p.group == 32)
        return multiply_fours(p, fetch,
                              fit >= 8   ? multiply_rows<BytePairs<8>, 32>
                              : fit >= 4 ? multiply_rows<BytePairs<4>, 32>
                                         : multiply_widened<32>);
    return multiply_fours(p, fetch,
                          fit >= 4   ? multiply_rows<BytePairs<4>, 16>
                          : fit >= 2 ? multiply_rows<BytePairs<2>, 16>
                                     : multiply_widened<16>);
}
template <typename Fetch>
int64_t multiply_tile(const TileProduct& p, const Fetch& fetch, std::type_identity<high_accumulator>) {
    return multiply_fours(p, fetch,
                          p.group == 32 ? multiply_rows<WordPairs, 32> : multiply_rows<WordPairs, 16>);
}

}  // namespace clarion::simd
