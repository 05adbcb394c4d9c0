// Products of float formats. Lanes are columns here: 16 weights of a row times 16 activations, with no transposition,
// since floats have neither scales nor offsets that rows would share. A sum is
//
//     16 lanes, each over every 16th column, in order; what is left of 16; the tree of reduce_add
//
// for any number of rows and tokens, so K/16 + 6 roundings follow one another.
//
// One token multiplies the weights where they lie. For several, some columns of 16 rows become floats in L1, once for up to
// 96 tokens, and are multiplied in tiles of registers: R rows and T tokens are R*T sums, T activations and one weight. With
// 16 registers (AVX2) 4 * 3 sums take 7 loads for 12 multiplies, with 32 (AVX-512) 4 * 6 take 10 for 24; a core loads as many
// registers in a cycle as it multiplies, or more. A tile's rows are read for all tokens and its tokens for all rows: both stay
// in L1, so that the activations of a prompt, which are megabytes, come from L2 or L3 once for each 16 rows. Between blocks of
// columns the sums lie in L2, 16 lanes of each: a load and a store for each columns_f32 / 16 multiplies.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "kernels/lanes.h"
#include "kernels/sinks.h"

namespace clarion {

// Adds what is left of 16 columns, `left` weights at `row`, to the lanes; and the lanes.
float finish_float(void (*dequantize)(const uint8_t*, int64_t, float*), const uint8_t* row, const float* x,
                   int64_t left, simd::f32x16 sum);

// 16 rows with one token, two rows at once: one chain of additions would wait for itself, and the memory answers four streams
// more slowly than two (26 GB/s of F16 where two had 32, Zen 5).
template <typename F>
void multiply_one_float(simd::Rows16 all, int64_t n_cols, const float* x, Fetch fetch, float* sums) {
    // Files in F64 are curiosities, and take what costs the least code.
    constexpr int R = F::bytes == 8 ? 1 : simd::tile_f32 > 1 ? 2 : 1;
    const int64_t whole = n_cols / 16 * 16;
    for (int first = 0; first < 16; first += R, fetch.advance(R * all.stride)) {
        const uint8_t* rows = all.base + first * all.stride;
        simd::f32x16 total[R];
        unrolled<R>([&]<int r>() CLARION_INLINE { total[r] = simd::zero(); });
        for (int64_t k = 0; k < whole; k += 16) {
            if (F::bytes * k % 64 == 0)  // a line has been reached
                unrolled<R>([&]<int r>() CLARION_INLINE { fetch.line_twice(r * all.stride + F::bytes * k); });
            const simd::f32x16 a = simd::load(x + k);
            unrolled<R>([&]<int r>() CLARION_INLINE {
                total[r] = simd::fma(F::read(rows + r * all.stride + F::bytes * k), a, total[r]);
            });
        }
        for (int r = 0; r < R; ++r)
            sums[first + r] = finish_float(F::dequantize, rows + r * all.stride + F::bytes * whole, x + whole,
                                           n_cols - whole, total[r]);
    }
}

// `n` weights of a row, a multiple of 16, as floats.
template <typename F>
void read_floats(const uint8_t* row, int64_t n, const uint8_t* fetch, float* w) {
    for (int64_t k = 0; k < n; k += 16) {
        simd::prefetch(fetch + F::bytes * k);
        simd::store(w + k, F::read(row + F::bytes * k));
    }
}

// Room that multiply_floats needs.
struct FloatScratch {
    static constexpr int64_t most_tokens = 96;  // a multiple of all tiles' tokens

    alignas(64) float weights[16 * most_tile_columns];
    alignas(64) float totals[most_tokens * 16 * simd::lanes];
};

// 16 rows with some tokens: sums[16 t + r]. `columns` of them at a time, a multiple of 16.
void multiply_floats(const Format& format, simd::Rows16 rows, int64_t n_cols, const std::byte* const* tokens,
                     int64_t n_tokens, const Fetch& fetch, int64_t columns, FloatScratch& scratch,
                     float* sums);

}  // namespace clarion
