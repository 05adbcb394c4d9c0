// Products and tiles of the codebook formats (formats/grid.h). They are compiled once for each size of an entry, not for each
// format, because looking up 16 rows takes 300 bytes of machine code.
//
// All indices of a block are stored before the first one is used. Otherwise each of 16 loads would wait for the vector that
// was stored just before it. Then an index costs one load, and an entry of 8 bytes another one: 32 loads for 128 weights.
// Processors begin two or three loads in a cycle, so 128 weights take 11 cycles or more. Nothing else in these formats takes as
// long. Entries of 4 bytes would need 64 loads. Where such a codebook fits into registers, it is searched there instead
// (simd/codebook_words.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/entry.h"
#include "formats/grid.h"
#include "kernels/sinks.h"
#include "machine/encoding.h"

namespace clarion {

template <typename E>
struct Grid {
    const E* entries;
    simd::PackedCodebook packed;  // of entries of 4 bytes
    int64_t bytes;                // of a block
    int group;
    int32_t offset;
    uint8_t flip, more;
    void (*codes)(const uint8_t* panel, int64_t at, const Codes&);
};
template <typename F>
constexpr simd::PackedCodebook packed_of() {
    if constexpr (sizeof(typename F::Entry) == 4) return F::packed();
    return {};
}
template <typename F>
inline constexpr Grid<typename F::Entry> grid_of = {F::grid(), packed_of<F>(), F::bytes, F::group,
                                                    F::offset, F::flip,        F::more,  F::codes};

// The codes of one block of 16 rows: indices of entries, and flags.
template <typename Entry>
struct GridBlock {
    alignas(64) uint32_t index[16 * 32];
    alignas(64) int32_t flags[16 * 8];

    static constexpr bool packed =
        sizeof(Entry) == 4 &&
        requires(simd::PackedCodebook codebook, Entry* index) { look_up_packed(codebook, index, 0); };

    void take(const Grid<Entry>& grid, const uint8_t* panel, int64_t at, float* scale) {
        grid.codes(panel, at, {index, flags, scale});
        if constexpr (packed) look_up_packed(grid.packed, index, 32);
    }
    // The weights of columns 8 step .. 8 step + 7. The lowest bits of `set` are their flags.
    [[gnu::always_inline]] void columns(const Grid<Entry>& grid, int64_t step, simd::i32x16 set,
                                        simd::u8x64& w0, simd::u8x64& w1) const {
        if constexpr (takes_registers<simd::high_accumulator>)
            columns_called(grid, step, set, w0, w1);
        else
            columns_here(grid, step, set, w0, w1);
    }
    [[gnu::noinline]] void columns_called(const Grid<Entry>& grid, int64_t step, const simd::i32x16& set,
                                          simd::u8x64& w0, simd::u8x64& w1) const {
        columns_here(grid, step, set, w0, w1);
    }
    [[gnu::always_inline]] void columns_here(const Grid<Entry>& grid, int64_t step, simd::i32x16 set,
                                             simd::u8x64& w0, simd::u8x64& w1) const {
        if constexpr (sizeof(Entry) == 8) {
            simd::look_up_rows(grid.entries, index + 16 * step, w0, w1);
            simd::change_flagged(w0, w1, set, grid.flip, grid.more);
        } else {
            if constexpr (packed)
                unpack_two(grid.packed, index + 16 * step, w0, w1);
            else
                simd::look_up_pairs(grid.entries, index + 16 * step, w0, w1);
            simd::negate_flagged(w0, w1, set, static_cast<uint8_t>(2 * grid.offset));
        }
    }
};

template <typename Entry>
[[gnu::noinline]] void decode_grid(const uint8_t* panel, int64_t blocks, const Tile& tile,
                                   const Grid<Entry>& grid) {
    GridBlock<Entry> block;
    uint8_t* u = tile.u;
    for (int64_t b = 0; b < blocks; ++b) {
        block.take(grid, panel, b * grid.bytes, tile.scale + b * (16 * 256 / grid.group));
        for (int64_t step = 0; step < 32;) {
            simd::i32x16 set = simd::load(block.flags + 4 * step);
            for (const int64_t end = step + 4; step < end; ++step, u += 128) {
                simd::u8x64 w0, w1;
                block.columns(grid, step, set, w0, w1);
                set = simd::shift_right<8>(set);
                simd::store_bytes(u, w0);
                simd::store_bytes(u + 64, w1);
            }
        }
    }
}

// Does what multiply_one of kernels/sinks.h does. Its sums are those of the product over tiles, too.
template <typename Accumulator, typename Entry>
[[gnu::noinline]] void multiply_one_grid(const uint8_t* panel, const Format::Columns& columns,
                                         const std::byte* activation, const Fetch& fetch, float* sums,
                                         const Grid<Entry>& grid) {
    const EncodedLayout layout(Accumulator::quad_bytes == 4 ? Kind::fast : Kind::high, columns.n_cols);
    const int64_t first = columns.first, end = first + columns.n;
    const auto* quads = reinterpret_cast<const uint8_t*>(activation) + first / 4 * Accumulator::quad_bytes;
    const auto* a_scale = reinterpret_cast<const float*>(activation + layout.scale);
    const auto* a_sum =
        reinterpret_cast<const int32_t*>(activation + layout.sum(grid.group)) + first / grid.group;
    const int32_t unbias = Accumulator::bias - grid.offset;
    const int64_t steps = grid.group / 8;
    const uint8_t* ahead = fetch.first;
    alignas(64) float scales[16 * 16];
    GridBlock<Entry> block;
    simd::f32x16 total = simd::load(sums);
    for (int64_t at = 0, column = first; column < end; at += grid.bytes) {
        block.take(grid, panel, at, scales);
        const float* scale = scales;
        for (int64_t step = 0; step < 32; column += 32) {
            simd::i32x16 set = simd::load(block.flags + 4 * step);
            simd::f32x16 sum = simd::zero();
            const simd::f32x16 by = simd::set1(a_scale[column / 32]);
            for (const int64_t end32 = step + 4; step < end32;) {
                auto acc = Accumulator::start(unbias * *a_sum++);
                for (const int64_t next = step + steps; step < next; ++step) {
                    simd::prefetch(ahead);
                    ahead += grid.bytes / 2;  // 16 rows, 32 steps
                    simd::u8x64 w0, w1;
                    block.columns(grid, step, set, w0, w1);
                    set = simd::shift_right<8>(set);
                    acc.dot2(w0, w1, quads);
                    quads += 2 * Accumulator::quad_bytes;
                }
                const simd::f32x16 x = simd::to_f32(acc.total()), s = simd::load(scale);
                if (steps == 4)
                    total = simd::fma(x, simd::mul(s, by), total);
                else
                    sum = simd::fma(x, s, sum);
                scale += 16;
            }
            if (steps != 4) total = simd::fma(sum, by, total);
        }
    }
    simd::store(sums, total);
}

}  // namespace clarion
