// AVX-512 VNNI and BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later): vdpbf16ps multiplies BF16 weights as they are.
//
// It adds two products of bf16 numbers, exact each, to a float. An activation is three such numbers: x = h + m + l, what is
// left after rounding to eight bits being rounded again, which holds all 24 bits of a float. So sums are as good as those of
// floats, at three operations for two columns instead of two, and what they save is widening and transposing the weights:
// one token reads them at the speed of memory. The instruction takes subnormal numbers for zero: activations below 2^-102
// lose bits.
#pragma once

#include "simd/avx512vnni.h"
#include "simd/tile.h"

namespace clarion::simd {

class PairProduct {
  public:
    // Up to 256 columns of 16 rows, from the panel's start.
    PairProduct(Panel panel, const FloatTileProduct& p) : p_(p) {
        int64_t k = 0;
        for (; k + 8 <= p.columns; k += 8) transpose_16(panel, 2 * k, weights_ + k / 2);
        if (k == p.columns) return;
        alignas(16) uint8_t rest[16][16] = {};
        for (int r = 0; r < 16; ++r)
            std::memcpy(rest[r], panel.base + r * panel.stride + 2 * k,
                        2 * static_cast<size_t>(p.columns - k));
        transpose_16({rest[0], 16}, 0, weights_ + k / 2);
    }

    // Sums of 32 columns, then those in order, as for floats. Tokens t .. t+n-1.
    template <int n>
    void run(int64_t t) {
        for (int i = 0; i < n; ++i) split(p_.token(t + i), parts_[i]);
        __m512 total[n];
        for (int i = 0; i < n; ++i) total[i] = load(p_.sums + 16 * (t + i)).v;
        const int64_t pairs = (p_.columns + 1) / 2;
        for (int64_t first = 0; first < pairs; first += 16) {
            const int64_t last = first + 16 < pairs ? first + 16 : pairs;
            __m512 high[n], middle[n], low[n];
#pragma GCC unroll 4
            for (int i = 0; i < n; ++i) high[i] = middle[i] = low[i] = _mm512_setzero_ps();
            for (int64_t q = first; q < last; ++q) {
                const auto w = reinterpret_cast<__m512bh>(weights_[q].v);
#pragma GCC unroll 4
                for (int i = 0; i < n; ++i) {
                    high[i] = _mm512_dpbf16_ps(high[i], w, pair(parts_[i][0], q));
                    middle[i] = _mm512_dpbf16_ps(middle[i], w, pair(parts_[i][1], q));
                    low[i] = _mm512_dpbf16_ps(low[i], w, pair(parts_[i][2], q));
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < n; ++i)
                total[i] = _mm512_add_ps(total[i], _mm512_add_ps(high[i], _mm512_add_ps(middle[i], low[i])));
        }
        for (int i = 0; i < n; ++i) store(p_.sums + 16 * (t + i), {total[i]});
    }

  private:
    static constexpr int64_t most_columns = 256;
    using Parts = uint16_t[3][most_columns + 16];

    static __m512bh pair(const uint16_t* part, int64_t q) {
        int32_t bits;
        std::memcpy(&bits, part + 2 * q, 4);
        return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
    }

    void split(const float* x, Parts& parts) const {
        for (int64_t k = 0; k < p_.columns; k += 16) {
            const int64_t left = p_.columns - k;
            __m512 rest = left < 16 ? load_first(x + k, static_cast<int>(left)).v : load(x + k).v;
            for (auto& part : parts) {
                const __m256i rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(rest));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(part + k), rounded);
                const __m512 value =
                    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
                // What is left of infinity is nothing.
                rest = _mm512_sub_ps(rest, value);
                rest = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(rest, rest, _CMP_ORD_Q), rest);
            }
        }
    }

    const FloatTileProduct& p_;
    u8x64 weights_[most_columns / 2];
    Parts parts_[4];
};

// BF16 weights from a panel's start.
inline void multiply_bf16(Panel panel, const FloatTileProduct& p) {
    PairProduct product(panel, p);
    int64_t t = 0;
    for (; t + 4 <= p.n_tokens; t += 4) product.run<4>(t);
    for (; t < p.n_tokens; ++t) product.run<1>(t);
}

}  // namespace clarion::simd
