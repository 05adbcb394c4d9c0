// What becomes of decoded weights: formats/format.h says what a decoder calls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/format.h"
#include "kernels/activations.h"
#include "kernels/format_table.h"

namespace clarion {

// Keeps them as a tile, for many tokens.
template <typename F>
struct TileSink {
    uint8_t* u;

    void begin() const {}
    template <int quad>
    void put2(simd::u8x64 w0, simd::u8x64 w1) const {
        simd::store_bytes(u + 64 * quad, w0);
        simd::store_bytes(u + 64 * quad + 64, w1);
    }
    void finish() { u += 16 * F::live * F::group; }
};

template <typename F>
void decode_tile(Panel panel, int64_t blocks, const Tile& tile) {
    F::scales(panel, blocks, tile.scale, tile.neg_min);
    TileSink<F> sink{tile.u};
    for (int64_t b = 0; b < blocks; ++b) F::weights(panel, b * F::bytes, sink);
}

// Multiplies them with one token at once, a unit after the other. Complete groups are added to `total` in
// column order, exactly as the product over tiles does it.
template <typename F, typename Accumulator>
struct OneToken {
    static constexpr int32_t unbias = Accumulator::bias - F::offset;
    static constexpr int columns = F::live * F::group;
    static constexpr int unit_bytes = 16 * F::bytes * columns / F::block;  // of all rows

    Fetch fetch;
    const uint8_t* quads;
    const float *a_scale, *a_fsum;
    const int32_t* a_sum;  // of this format's groups
    const float *scale, *neg_min;
    simd::f32x16 total = simd::zero();
    Accumulator acc[F::live];

    [[gnu::always_inline]] void begin() {
        unrolled<F::live>([&]<int g>() CLARION_INLINE {
            acc[g] = Accumulator::start(unbias == 0 ? 0 : unbias * a_sum[g]);
        });
    }
    template <int quad>
    [[gnu::always_inline]] void put2(simd::u8x64 w0, simd::u8x64 w1) {
        // Lines are fetched one by one between the multiplies: a burst of them would fill the miss buffers
        // and stall.
        constexpr int from = unit_bytes * quad / (columns / 4), to = unit_bytes * (quad + 2) / (columns / 4);
        for (int line = (from + 63) / 64 * 64; line < to; line += 64) fetch.line(line);
        acc[4 * quad / F::group].dot2(w0, w1, quads + quad * Accumulator::quad_bytes);
    }
    [[gnu::always_inline]] void finish() {
        unrolled<F::live>([&]<int g>() CLARION_INLINE {
            constexpr int block = g * F::group / 32;
            const simd::f32x16 s = simd::mul(simd::load(scale + 16 * g), simd::set1(a_scale[block]));
            total = simd::fma(simd::to_f32(acc[g].total()), s, total);
            if constexpr (F::has_min)
                total = simd::fma(simd::load(neg_min + 16 * g), simd::set1(a_fsum[block]), total);
        });
        fetch.advance(unit_bytes);
        quads += columns / 4 * Accumulator::quad_bytes;
        a_scale += columns / 32;
        a_fsum += columns / 32;
        a_sum += F::live;
        scale += 16 * F::live;
        neg_min += 16 * F::live;
    }
};

template <typename F, typename Accumulator>
void multiply_one(Panel panel, int64_t n_cols, const std::byte* activation, const Fetch& fetch, float* sums) {
    constexpr Kind kind = Accumulator::quad_bytes == 4 ? Kind::fast : Kind::high;
    constexpr int64_t scale_columns = 512;  // scales are decoded for so many columns at a time
    constexpr int64_t most = scale_columns / F::block, groups = F::block / F::group;
    alignas(64) float scale[16 * most * groups], neg_min[F::has_min ? 16 * most * groups : 16];
    const EncodedLayout layout(kind, n_cols);
    OneToken<F, Accumulator> sink;
    sink.quads = reinterpret_cast<const uint8_t*>(activation);
    sink.a_scale = reinterpret_cast<const float*>(activation + layout.scale);
    sink.a_fsum = reinterpret_cast<const float*>(activation + layout.fsum32);
    sink.a_sum =
        reinterpret_cast<const int32_t*>(activation + (F::group == 32 ? layout.sum32 : layout.sum16));
    sink.fetch = fetch;
    for (int64_t b = 0; b < n_cols / F::block; b += most) {
        const int64_t n = n_cols / F::block - b < most ? n_cols / F::block - b : most;
        F::scales(panel, n, scale, neg_min);
        sink.scale = scale;
        sink.neg_min = neg_min;
        for (int64_t i = 0; i < n; ++i) F::weights(panel, i * F::bytes, sink);
        panel.base += n * F::bytes;
    }
    simd::store(sums, sink.total);
}

// A cache line of each row at a time, through 16 x 16 transpositions: rows of a power of two bytes share one
// set of L1, which holds fewer lines than a panel has rows.
template <typename F>
void decode_floats(Panel panel, int64_t first, int64_t n, float* weights) {
    constexpr int64_t line_columns = F::bytes < 4 ? 64 / F::bytes : 16;
    alignas(64) float block[line_columns / 16][16][16];
    for (int64_t k = 0; k < n; k += line_columns) {
        const int64_t columns = n - k < line_columns ? n - k : line_columns;
        for (int r = 0; r < 16; ++r)
            for (int64_t c = 0; c < columns; c += 16) {
                const int some = static_cast<int>(columns - c < 16 ? columns - c : 16);
                simd::store(block[c / 16][r], F::read(panel.base + r * panel.stride, first + k + c, some));
            }
        for (int64_t c = 0; c < columns; c += 4) {
            const Panel rows{reinterpret_cast<const uint8_t*>(block[c / 16]), 64};
            simd::u8x64 out[4];
            simd::transpose_16(rows, 4 * (c % 16), out);
            for (int i = 0; i < 4; ++i) simd::store_bytes(weights + 16 * (k + c + i), out[i]);
        }
    }
}

}  // namespace clarion
