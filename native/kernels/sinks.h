// Sinks: what takes the weights that a decoder delivers (formats/format.h). One keeps them as a tile, the other multiplies them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/entry.h"
#include "formats/format.h"
#include "machine/encoding.h"

namespace clarion {

// Whether a format delivers a unit in two runs: the first 16 columns of each 32, then the other 16.
template <typename F>
inline constexpr bool in_runs = [] {
    if constexpr (requires { F::runs; })
        return F::runs == 2;
    else
        return false;
}();

// Not inlined, so that all sinks share it: it takes little of the time, but much of a format's machine code.
template <typename F>
[[gnu::noinline]] void decode_scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
    F::scales(panel, blocks, scale, neg_min);
}

// Keeps the weights as a tile, for many tokens.
template <typename F, typename Rows = simd::u8x64>
struct TileSink {
    using Vector = Rows;
    uint8_t* u;

    void begin() const {}
    template <int quad>
    void put2(Vector w0, Vector w1) const {
        store_rows(u + 64 * quad, w0);
        store_rows(u + 64 * quad + 64, w1);
    }
    void next_run() { u += 16 * 16; }
    void finish() { u += 16 * F::live * F::group - (in_runs<F> ? 2 * 16 * 16 : 0); }
};

template <typename F>
void decode_tile(const uint8_t* panel, int64_t blocks, const Tile& tile) {
    decode_scales<F>(panel, blocks, tile.scale, tile.neg_min);
    TileSink<F> sink{tile.u};
    for (int64_t b = 0; b < blocks; ++b) F::weights(panel, b * F::bytes, sink);
}

// The type that sums products of a format's weights. Some instruction sets have a faster one for weights that are nibbles.
template <typename F, typename Accumulator>
struct SumsOf {
    using Type = Accumulator;
};
template <typename F, typename Accumulator>
    requires(F::largest == 15) && requires { typename Accumulator::Nibbles; }
struct SumsOf<F, Accumulator> {
    using Type = typename Accumulator::Nibbles;
};

// The integer sums of one unit with one token, a sum for each group.
template <typename F, typename Accumulator>
struct GroupSums {
    static constexpr int32_t unbias = Accumulator::bias - F::offset;
    static constexpr int columns = F::live * F::group, runs = in_runs<F> ? 2 : 1;
    // Runs complete groups of 16 columns out of order. So their sums wait in memory until the whole unit is complete.
    static constexpr bool waits = in_runs<F> && F::group == 16;
    static constexpr int sums = waits ? F::live / 2 : F::live;

    const uint8_t* quads;
    const int32_t* a_sum;  // of this format's groups
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
    [[gnu::always_inline]] Accumulator& sum_of() {
        return acc[4 * quad / (waits ? 32 : F::group)];
    }
};

// Multiplies the weights with one token at once, unit after unit. It adds complete groups to `total` in the order of the
// columns, exactly as the product over tiles does.
template <typename F, typename Accumulator>
struct OneToken : GroupSums<F, Accumulator> {
    using Vector = simd::u8x64;
    using Sums = GroupSums<F, Accumulator>;
    using Sums::a_sum, Sums::acc, Sums::columns, Sums::quads, Sums::run, Sums::runs, Sums::sums, Sums::waits;
    static constexpr int run_bytes = 16 * F::bytes * columns / F::block / runs;  // of all rows

    Fetch fetch;
    const float* a_scale;
    const float* a_fsum;  // as a_sum
    const float *scale, *neg_min;
    simd::f32x16 total;
    int32_t* waiting;  // [F::live][16]

    template <int quad>
    [[gnu::always_inline]] void put2(simd::u8x64 w0, simd::u8x64 w1) {
        fetch_for<quad>();
        this->template sum_of<quad>().dot2(w0, w1, quads + quad * Accumulator::quad_bytes);
    }
    template <int low, int high>
    [[gnu::always_inline]] void put_nibbles2(simd::u8x64 q0, simd::u8x64 q1)
        requires requires(Accumulator sum) { sum.dot2_low(q0, q1, quads); }
    {
        fetch_for<low>();
        this->template sum_of<low>().dot2_low(q0, q1, quads + low * Accumulator::quad_bytes);
        fetch_for<high>();
        this->template sum_of<high>().dot2_high(q0, q1, quads + high * Accumulator::quad_bytes);
    }
    // Fetches lines one by one between the multiplies. A burst of fetches would fill the miss buffers, and the processor would
    // wait.
    template <int quad>
    [[gnu::always_inline]] void fetch_for() const {
        constexpr int nth = runs == 2 ? quad / 8 * 4 + quad % 4 : quad, of = columns / 4 / runs;
        constexpr int from = run_bytes * nth / of, to = run_bytes * (nth + 2) / of;
        for (int line = (from + 63) / 64 * 64; line < to; line += 64) fetch.line(line);
    }
    [[gnu::always_inline]] void next_run() {
        fetch.advance(run_bytes);
        quads += 4 * Accumulator::quad_bytes;
        if constexpr (waits) {
            unrolled<sums>([&]<int g>() CLARION_INLINE { simd::store(waiting + 32 * g, acc[g].total()); });
            waiting += 16;
            ++a_sum;
            if (++run < runs) this->start();  // after the last run there are no more sums to start
        }
    }
    // Adds 32 columns, whose activations share a scale, to `total`: group g, or groups g and g + 1.
    template <typename SumOf>
    [[gnu::always_inline]] void add(int64_t g, const SumOf& sum_of) {
        constexpr int groups = 32 / F::group;
        const simd::f32x16 by = simd::set1(a_scale[g / groups]);
        simd::f32x16 sum;
        unrolled<groups>([&]<int h>() CLARION_INLINE {
            const simd::f32x16 x = simd::to_f32(sum_of.template operator()<h>());
            const simd::f32x16 s = simd::load(scale + 16 * (g + h));
            if constexpr (groups == 1)
                total = simd::fma(x, simd::mul(s, by), total);
            else if constexpr (h == 0)
                sum = simd::mul(x, s);
            else
                total = simd::fma(simd::fma(x, s, sum), by, total);
        });
        if constexpr (F::has_min)
            unrolled<groups>([&]<int h>() CLARION_INLINE {
                total = simd::fma(simd::load(neg_min + 16 * (g + h)), simd::set1(a_fsum[g + h]), total);
            });
    }
    [[gnu::always_inline]] void finish() {
        if constexpr (waits) {
            waiting -= 32;
            a_sum -= 2;
            for (int64_t g = 0; g < F::live; g += 2)
                add(g, [&]<int h>() CLARION_INLINE { return simd::load(waiting + 16 * (g + h)); });
        } else {
            constexpr int groups = 32 / F::group;
            unrolled<F::live / groups>([&]<int i>() CLARION_INLINE {
                add(i * groups, [&]<int h>() CLARION_INLINE { return acc[i * groups + h].total(); });
            });
        }
        if constexpr (runs == 1) fetch.advance(run_bytes);
        quads += (columns / 4 - (runs == 2 ? 8 : 0)) * Accumulator::quad_bytes;
        a_scale += columns / 32;
        a_fsum += F::live;
        a_sum += F::live;
        scale += 16 * F::live;
        neg_min += 16 * F::live;
    }
};

// Roofline, AVX-512 VNNI on one thread of a Zen 4 (3.7 GHz), for 128 weights, with activations of 8 bits and of 16. Bytes: 72 (Q4_K),
// 105 (Q6_K) or 136 (Q8_0), at the 28 GB/s of its memory 9.5, 14 and 18 cycles. Products: 2 or 4 vpdpbusd of 512 bits, of which one
// begins in a cycle. All instructions, with the panel in L2: 5.4 and 6.4 cycles (Q4_K), 8.5 and 10.0 (Q6_K), 8.4 and 8.9 (Q8_0), as
// measured. So the memory bounds it, and it reads at 86 to 110% of what a loop does that only reads (2026-11-21, docs/benchmarks.md).
template <typename F, typename Accumulator>
void multiply_one(const uint8_t* panel, const Format::Columns& columns, const std::byte* activation,
                  const Fetch& fetch, float* sums) {
    constexpr Kind kind = Accumulator::quad_bytes == 4 ? Kind::fast : Kind::high;
    constexpr int64_t scale_columns = 512;  // scales are decoded for so many columns at a time
    constexpr int64_t most = scale_columns / F::block, groups = F::block / F::group;
    alignas(64) float scale[16 * most * groups], neg_min[F::has_min ? 16 * most * groups : 16];
    const EncodedLayout layout(kind, columns.n_cols);
    OneToken<F, typename SumsOf<F, Accumulator>::Type> sink;
    alignas(64) int32_t waiting[sink.waits ? 16 * F::live : 16];
    sink.waiting = waiting;
    const int64_t g = columns.first / F::group;
    sink.quads = reinterpret_cast<const uint8_t*>(activation) + columns.first / 4 * Accumulator::quad_bytes;
    sink.a_scale = reinterpret_cast<const float*>(activation + layout.scale) + columns.first / 32;
    sink.a_fsum = reinterpret_cast<const float*>(activation + layout.fsum(F::group)) + g;
    sink.a_sum = reinterpret_cast<const int32_t*>(activation + layout.sum(F::group)) + g;
    sink.fetch = fetch;
    sink.total = simd::load(sums);
    for (int64_t left = columns.n / F::block; left > 0; left -= most) {
        const int64_t n = left < most ? left : most;
        decode_scales<F>(panel, n, scale, neg_min);
        sink.scale = scale;
        sink.neg_min = neg_min;
        for (int64_t i = 0; i < n; ++i) F::weights(panel, i * F::bytes, sink);
        panel += 16 * n * F::bytes;
    }
    simd::store(sums, sink.total);
}

}  // namespace clarion
