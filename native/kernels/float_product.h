// Products of float formats. Lanes are columns here: 16 weights of a row times 16 activations, with no transposition,
// since floats have neither scales nor offsets that rows would share. A sum is
//
//     16 lanes, each over every 16th column, in order; what is left of 16; the tree of reduce_add
//
// for any number of rows and tokens, so K/16 + 6 roundings follow one another.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "kernels/lanes.h"
#include "kernels/sinks.h"

namespace clarion {

// Adds the columns that are left of 16, and the lanes: once for all numbers of rows and tokens.
template <typename F>
[[gnu::noinline]] void finish_floats(simd::Rows16 rows, int64_t n_cols, const float* const* x, int n_rows,
                                     int n_tokens, const simd::f32x16* total, float* sums) {
    const int64_t whole = n_cols / 16 * 16, left = n_cols - whole;
    for (int r = 0; r < n_rows; ++r) {
        alignas(64) float w[16] = {};
        F::dequantize(rows.base + r * rows.stride + F::bytes * whole, left, w);
        for (int t = 0; t < n_tokens; ++t) {
            simd::f32x16 sum = total[n_rows * t + r];
            if (left != 0) sum = simd::add(sum, simd::mul(simd::load(w), load_n(x[t] + whole, left)));
            sums[16 * t + r] = simd::reduce_add(sum);
        }
    }
}

// R rows with T tokens: sums[16 t + r]. Only the first tokens fetch ahead, which would cost the others a fifth.
template <typename F, int R, int T>
void dot_floats(simd::Rows16 rows, int64_t n_cols, const float* const* x, const Fetch* fetch, float* sums) {
    simd::f32x16 total[R * T];
    unrolled<R * T>([&]<int i>() CLARION_INLINE { total[i] = simd::zero(); });
    for (int64_t k = 0; k + 16 <= n_cols; k += 16) {
        simd::f32x16 w[R];
        unrolled<R>([&]<int r>()
                        CLARION_INLINE { w[r] = F::read(rows.base + r * rows.stride + F::bytes * k); });
        if (fetch != nullptr)
            unrolled<R>([&]<int r>() CLARION_INLINE {
                simd::prefetch(fetch->first + r * rows.stride + F::bytes * k);
                if constexpr (T == 1) simd::prefetch(fetch->last + r * rows.stride + F::bytes * k);
            });
        unrolled<T>([&]<int t>() CLARION_INLINE {
            const simd::f32x16 a = simd::load(x[t] + k);
            unrolled<R>([&]<int r>()
                            CLARION_INLINE { total[R * t + r] = simd::fma(w[r], a, total[R * t + r]); });
        });
    }
    finish_floats<F>(rows, n_cols, x, R, T, total, sums);
}

template <typename F>
void multiply_floats(simd::Rows16 all, int64_t n_cols, const std::byte* const* tokens, int64_t n_tokens,
                     Fetch fetch, float* sums) {
    // Sums, the weights of R rows and an activation: 21 registers of 32, or 14 of 16 where a vector takes two. Loads are
    // then at most as many as multiplies. Files in F64 are curiosities, and take what costs the least code.
    constexpr int R = F::bytes == 8 ? 1 : simd::tile_f32 >= 12 ? 4 : simd::tile_f32 > 1 ? 2 : 1, T = R;
    const auto* x = reinterpret_cast<const float* const*>(tokens);
    for (int r = 0; r < 16; r += R, fetch.advance(R * all.stride)) {
        const simd::Rows16 rows{all.base + r * all.stride, all.stride};
        int64_t t = 0;
        if constexpr (T > 1)
            for (; t + T <= n_tokens; t += T)
                dot_floats<F, R, T>(rows, n_cols, x + t, t == 0 ? &fetch : nullptr, sums + 16 * t + r);
        for (; t < n_tokens; ++t)
            dot_floats<F, R, 1>(rows, n_cols, x + t, t == 0 ? &fetch : nullptr, sums + 16 * t + r);
    }
}

}  // namespace clarion
