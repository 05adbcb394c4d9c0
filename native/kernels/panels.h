// Matrices of a recurrent state, of which each token adds one outer product: S ← f S + k changeᵀ, o = Sᵀ q.
//
// The columns lie in panels of 16, [dim][16], the lanes of a vector; what is left of them in a panel as narrow as they are.
// So a sum over the rows runs in their order, and no two columns meet. Two panels are a tile: rows are broadcast to
// both at once, as loads are what bounds it otherwise. With 128 rows it has 16 KB, half of an L1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/lanes.h"
#include "simd/simd.h"

namespace clarion {

// With 16 registers, those of one panel are all that there is room for (a vector of 16 lanes takes two of them).
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int panels_at_once = 2;
#else
inline constexpr int panels_at_once = 1;
#endif
inline constexpr int64_t tile_columns = 2 * simd::lanes;

// A token, as the rows of a matrix see it.
struct Rank1 {
    int64_t dim;
    const float* factors;  // [dim], or one for all rows
    const float *k, *q;    // [dim]
    const float* next;     // [dim]: r = Sᵀ next is computed of the changed matrix
};

// r = Sᵀ k of one or more panels, `stride` floats apart. Sums of even and of odd rows are kept apart, as in `update`. What lies
// `fetch` floats further is fetched into L2.
template <int n>
[[gnu::always_inline]] inline void multiply(const float* s, int64_t stride, int64_t dim, const float* k,
                                            float* r, int64_t fetch) {
    simd::f32x16 even[n], odd[n];
    const auto add_row = [&](int64_t i, simd::f32x16* sums) __attribute__((always_inline)) {
        const simd::f32x16 ki = simd::set1(k[i]);
#pragma GCC unroll 4
        for (int v = 0; v < n; ++v) {
            const float* p = s + v * stride + 16 * i;
            simd::prefetch(p + fetch);
            sums[v] = simd::fma(ki, simd::load(p), sums[v]);
        }
    };
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) even[v] = odd[v] = simd::zero();
    int64_t i = 0;
    for (; i + 1 < dim; i += 2) {
        add_row(i, even);
        add_row(i + 1, odd);
    }
    if (i < dim) add_row(i, even);
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) simd::store(r + 16 * v, simd::add(even[v], odd[v]));
}

// Changes one or more panels: S ← f S + k changeᵀ. o = Sᵀ q, and r = Sᵀ next where `with_next`; change, o and r are
// [n][16]. per_row: there is a factor for each row. fetching: what lies `fetch` floats further is fetched, again where
// `multiply` has done so: while its miss buffers are full, a processor drops what is to be fetched.
template <int n, bool per_row, bool with_next, bool fetching>
[[gnu::always_inline]] inline void update(float* s, int64_t stride, const Rank1& token, const float* change,
                                          float* o, float* r, int64_t fetch) {
    struct Sums {
        simd::f32x16 o[n], r[n];
    } even, odd;
    simd::f32x16 d[n];
    // Not read again and again from a token that stores might change, for all that the compiler knows.
    const auto [dim, factors, k_row, q_row, next_row] = token;
    const simd::f32x16 factor = simd::set1(factors[0]);
    const auto add_row = [&](int64_t i, Sums& sums) __attribute__((always_inline)) {
        const simd::f32x16 f = per_row ? simd::set1(factors[i]) : factor;
        const simd::f32x16 k = simd::set1(k_row[i]), q = simd::set1(q_row[i]);
        const simd::f32x16 next = with_next ? simd::set1(next_row[i]) : k;
#pragma GCC unroll 4
        for (int v = 0; v < n; ++v) {
            float* p = s + v * stride + 16 * i;
            if constexpr (fetching) simd::prefetch(p + fetch);
            const simd::f32x16 x = simd::fma(k, d[v], simd::mul(f, simd::load(p)));
            simd::store(p, x);
            sums.o[v] = simd::fma(q, x, sums.o[v]);
            if constexpr (with_next) sums.r[v] = simd::fma(next, x, sums.r[v]);
        }
    };
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
        d[v] = simd::load(change + 16 * v);
        even.o[v] = even.r[v] = odd.o[v] = odd.r[v] = simd::zero();
    }
    int64_t i = 0;
    for (; i + 1 < dim; i += 2) {
        add_row(i, even);
        add_row(i + 1, odd);
    }
    if (i < dim) add_row(i, even);
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
        simd::store(o + 16 * v, simd::add(even.o[v], odd.o[v]));
        if constexpr (with_next) simd::store(r + 16 * v, simd::add(even.r[v], odd.r[v]));
    }
}

// All panels of a tile, one behind the other.
template <bool per_row, bool with_next, bool fetching>
void update_panels(float* s, int64_t n, const Rank1& token, const float* change, float* o, float* r,
                   int64_t fetch) {
    const int64_t stride = token.dim * simd::lanes;
    if (n == panels_at_once) {
        update<panels_at_once, per_row, with_next, fetching>(s, stride, token, change, o, r, fetch);
        return;
    }
    for (int64_t i = 0; i < n; ++i, change += simd::lanes, o += simd::lanes, r += simd::lanes)
        update<1, per_row, with_next, fetching>(s + i * stride, stride, token, change, o, r, fetch);
}
inline void multiply_panels(const float* s, int64_t n, int64_t dim, const float* k, float* r, int64_t fetch) {
    const int64_t stride = dim * simd::lanes;
    if (n == panels_at_once) {
        multiply<panels_at_once>(s, stride, dim, k, r, fetch);
        return;
    }
    for (int64_t i = 0; i < n; ++i) multiply<1>(s + i * stride, stride, dim, k, r + i * simd::lanes, fetch);
}

// Where a tile of a matrix [dim, columns] lies.
struct PanelTile {
    int64_t dim, first, columns;  // the tile's own columns

    bool whole() const { return columns % simd::lanes == 0; }
    int64_t panels() const { return (columns + simd::lanes - 1) / simd::lanes; }
    int64_t size() const { return dim * columns; }

    // Calls work(s, number of panels) on whole panels: the tile's own, or, where the last one is narrow, copies in `room`,
    // which it puts back.
    template <typename Work>
    void with_panels(float* s, float* room, const Work& work) const {
        if (whole()) {
            work(s);
            return;
        }
        const int64_t wide = columns / simd::lanes * simd::lanes * dim, n = columns % simd::lanes;
        std::memcpy(room, s, static_cast<size_t>(wide) * sizeof(float));
        for (int64_t i = 0; i < dim; ++i) simd::store(room + wide + 16 * i, load_n(s + wide + n * i, n));
        work(room);
        std::memcpy(s, room, static_cast<size_t>(wide) * sizeof(float));
        for (int64_t i = 0; i < dim; ++i) store_n(s + wide + n * i, simd::load(room + wide + 16 * i), n);
    }
};

// How many tiles of `n` matrices with so many columns take turns (kernels/recurrence.h): 128 KB of state, which leave L2
// enough for the rows of their tokens.
inline int64_t tiles_alike(int64_t columns, int64_t n) {
    return std::clamp<int64_t>((columns + tile_columns - 1) / tile_columns * n, 1, 8);
}

}  // namespace clarion
