// The sinks of sinks.h for processors where a vector of 16 rows takes several registers. They take the rows of one register
// through all blocks that L1 holds, then the rows of the next register. All 16 rows at once would need as many times the
// machine code, and more registers than there are.
#pragma once

#include <cstring>

#include "kernels/sinks.h"

namespace clarion {

template <typename F, typename Accumulator>
void decode_tile_per_register(const uint8_t* panel, int64_t blocks, const Tile& tile) {
    using Vector = typename Accumulator::OneRegister::Vector;
    decode_scales<F>(panel, blocks, tile.scale, tile.neg_min);
    for (size_t rows = 0; rows < 64; rows += sizeof(Vector)) {
        TileSink<F, Vector> sink{tile.u + rows};
        for (int64_t b = 0; b < blocks; ++b) F::weights(panel + rows, b * F::bytes, sink);
    }
}

// Multiplies the rows of one register with one token: an integer sum for each row and group of columns.
template <typename F, typename Accumulator>
struct RegisterSums : GroupSums<F, Accumulator> {
    using Vector = typename Accumulator::Vector;
    using Sums = GroupSums<F, Accumulator>;
    using Sums::a_sum, Sums::acc, Sums::columns, Sums::quads, Sums::run, Sums::runs, Sums::sums, Sums::waits;
    static constexpr int64_t unit_bytes = 16 * F::bytes * columns / F::block;  // of all rows

    int32_t* group_sums;  // [groups][16 rows], from this register's rows on
    Fetch fetch;          // a register's share: every so many-th line of a unit's bytes

    template <int quad>
    [[gnu::always_inline]] void put2(Vector w0, Vector w1) {
        this->template sum_of<quad>().dot2(w0, w1, quads + quad * Accumulator::quad_bytes);
    }
    [[gnu::always_inline]] void next_run() {
        quads += 4 * Accumulator::quad_bytes;
        if constexpr (waits) {
            keep(2 * 16);
            group_sums += 16;
            ++a_sum;
            if (++run < runs) this->start();  // after the last run there are no more sums to start
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

// What multiply_per_register must know of a format.
struct RegisterProduct {
    Kind kind;
    int block, bytes, group, registers;
    bool has_min;
    void (*scales)(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min);
    void (*multiply)(const uint8_t* panel, int64_t blocks, const uint8_t* quads, const int32_t* a_sum,
                     const Fetch& fetch, int32_t* group_sums);
};

template <typename F, typename OneRegister>
void multiply_register(const uint8_t* panel, int64_t blocks, const uint8_t* quads, const int32_t* a_sum,
                       const Fetch& fetch, int32_t* group_sums) {
    RegisterSums<F, OneRegister> sink;
    sink.quads = quads;
    sink.a_sum = a_sum;
    sink.fetch = fetch;
    sink.group_sums = group_sums;
    for (int64_t b = 0; b < blocks; ++b) F::weights(panel, b * F::bytes, sink);
}

// Adds each group's sum, times its scales, to sums[r]: in the order of the columns, with the roundings of the product over
// tiles.
void multiply_per_register(const RegisterProduct&, const uint8_t* panel, const Format::Columns&,
                           const std::byte* activation, const Fetch&, float* sums);

template <typename F, typename Accumulator>
void multiply_one_per_register(const uint8_t* panel, const Format::Columns& columns,
                               const std::byte* activation, const Fetch& fetch, float* sums) {
    using OneRegister = typename Accumulator::OneRegister;
    static constexpr RegisterProduct product = {
        .kind = OneRegister::quad_bytes == 4 ? Kind::fast : Kind::high,
        .block = F::block,
        .bytes = F::bytes,
        .group = F::group,
        .registers = 64 / sizeof(typename OneRegister::Vector),
        .has_min = F::has_min,
        .scales = decode_scales<F>,
        .multiply = multiply_register<F, OneRegister>,
    };
    multiply_per_register(product, panel, columns, activation, fetch, sums);
}

}  // namespace clarion
