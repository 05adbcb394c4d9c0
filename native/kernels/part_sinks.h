// As sinks.h, for processors whose vectors of 16 rows take several registers: a register's rows, a part, are decoded through
// all blocks that L1 holds, then the next part's. Sixteen rows at once would be as many times the machine code, and their
// sums and weights more registers than there are.
//
#pragma once

#include <cstring>

#include "kernels/sinks.h"

namespace clarion {

template <typename F, typename Accumulator>
void decode_tile_parts(const uint8_t* panel, int64_t blocks, const Tile& tile) {
    using Vector = typename Accumulator::Part::Vector;
    decode_scales<F>(panel, blocks, tile.scale, tile.neg_min);
    for (size_t rows = 0; rows < 64; rows += sizeof(Vector)) {
        TileSink<F, Vector> sink{tile.u + rows};
        for (int64_t b = 0; b < blocks; ++b) F::weights(panel + rows, b * F::bytes, sink);
    }
}

// Integer sums of a part's rows with one token, for each group of columns.
template <typename F, typename Accumulator>
struct OnePart {
    using Vector = typename Accumulator::Vector;
    static constexpr int32_t unbias = Accumulator::bias - F::offset;
    static constexpr int columns = F::live * F::group, runs = in_runs<F> ? 2 : 1;
    static constexpr bool waits = in_runs<F> && F::group == 16;  // as OneToken
    static constexpr int sums = waits ? F::live / 2 : F::live;
    static constexpr int64_t unit_bytes = 16 * F::bytes * columns / F::block;  // of all rows

    const uint8_t* quads;
    const int32_t* a_sum;
    int32_t* group_sums;  // [groups][16 rows], from this part's on
    Fetch fetch;          // what this part fetches of as many bytes as a unit has: every so many-th line
    Accumulator acc[sums];
    int run;

    [[gnu::always_inline]] void begin() {
        run = 0;
        start();
    }
    [[gnu::always_inline]] void start() {
        unrolled<sums>([&]<int g>() CLARION_INLINE {
            acc[g] = Accumulator::start(unbias == 0 ? 0 : unbias * a_sum[waits ? 2 * g : g]);
        });
    }
    template <int quad>
    [[gnu::always_inline]] void put2(Vector w0, Vector w1) {
        acc[4 * quad / (waits ? 32 : F::group)].dot2(w0, w1, quads + quad * Accumulator::quad_bytes);
    }
    [[gnu::always_inline]] void next_run() {
        quads += 4 * Accumulator::quad_bytes;
        if constexpr (waits) {
            keep(2 * 16);
            group_sums += 16;
            ++a_sum;
            if (++run < runs) start();  // there is no third, and no sums for it
        }
    }
    [[gnu::always_inline]] void keep(int64_t apart) {
        unrolled<sums>([&]<int g>() CLARION_INLINE {
            const auto total = acc[g].total();
            std::memcpy(group_sums + g * apart, &total, sizeof total);
        });
    }
    [[gnu::always_inline]] void finish() {
        if constexpr (!waits) keep(16);
        constexpr int done = waits ? runs : 0;  // groups that next_run() went on by
        group_sums += 16 * (F::live - done);
        a_sum += F::live - done;
        quads += (columns / 4 - (runs == 2 ? 8 : 0)) * Accumulator::quad_bytes;
        for (int64_t line = 0; line < unit_bytes; line += 64 * 64 / sizeof(Vector)) fetch.line(line);
        fetch.advance(unit_bytes);
    }
};

// sums[r] += each group's sum times its scales, in column order, as the product over tiles does it.
struct Scaled {
    const float *scale, *neg_min;  // [groups][16]; minima or null
    const float *a_scale, *a_fsum;
    int group;
};
[[gnu::noinline]] inline void add_scaled(const int32_t* group_sums, int64_t groups, const Scaled& by,
                                         float* sums) {
    simd::f32x16 total = simd::load(sums);
    for (int64_t g = 0; g < groups; ++g) {
        const simd::f32x16 s =
            simd::mul(simd::load(by.scale + 16 * g), simd::set1(by.a_scale[g * by.group / 32]));
        total = simd::fma(simd::to_f32(simd::load(group_sums + 16 * g)), s, total);
        if (by.neg_min != nullptr)
            total = simd::fma(simd::load(by.neg_min + 16 * g), simd::set1(by.a_fsum[g]), total);
    }
    simd::store(sums, total);
}

// Accumulator: of 16 rows.
template <typename F, typename Accumulator>
void multiply_one_parts(const uint8_t* panel, const Format::Columns& columns, const std::byte* activation,
                        const Fetch& fetch, float* sums) {
    using Part = typename Accumulator::Part;
    constexpr Kind kind = Accumulator::quad_bytes == 4 ? Kind::fast : Kind::high;
    constexpr int64_t most = 512 / F::block, groups = F::block / F::group;  // 512 columns at a time
    alignas(64) float scale[16 * most * groups], neg_min[F::has_min ? 16 * most * groups : 16];
    alignas(64) int32_t group_sums[16 * most * groups];
    const EncodedLayout layout(kind, columns.n_cols);
    Fetch ahead = fetch;
    for (int64_t column = columns.first, left = columns.n / F::block; left > 0; left -= most) {
        const int64_t n = left < most ? left : most, group = column / F::group;
        const auto* a_sum =
            reinterpret_cast<const int32_t*>(activation + (F::group == 32 ? layout.sum32 : layout.sum16)) +
            group;
        const auto* a_fsum =
            reinterpret_cast<const float*>(activation + (F::group == 32 ? layout.fsum32 : layout.fsum16)) +
            group;
        const auto* a_scale = reinterpret_cast<const float*>(activation + layout.scale) + column / 32;
        const auto* quads = reinterpret_cast<const uint8_t*>(activation) + column / 4 * Part::quad_bytes;
        decode_scales<F>(panel, n, scale, neg_min);
        for (size_t rows = 0; rows < 64; rows += sizeof(typename Part::Vector)) {
            OnePart<F, Part> sink;
            sink.quads = quads;
            sink.a_sum = a_sum;
            sink.group_sums = group_sums + rows / 4;
            sink.fetch = ahead;
            sink.fetch.advance(static_cast<int64_t>(rows / sizeof(typename Part::Vector)) * 64);
            for (int64_t i = 0; i < n; ++i) F::weights(panel + rows, i * F::bytes, sink);
        }
        add_scaled(group_sums, n * groups, {scale, F::has_min ? neg_min : nullptr, a_scale, a_fsum, F::group},
                   sums);
        panel += 16 * n * F::bytes;
        ahead.advance(16 * n * F::bytes);
        column += n * F::block;
    }
}

}  // namespace clarion
