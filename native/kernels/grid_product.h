// Products and tiles of the codebook formats (formats/grid.h). They are compiled once for each size of an entry, not for each
// format, because looking up 16 rows takes 300 bytes of machine code.
//
// All indices of a block are stored before the first one is used. Otherwise each of 16 loads would wait for the vector that
// was stored just before it.
//
// Roofline, one token with AVX2 on a Zen 4 (six instructions and two vector loads begin in a cycle), cycles for 128 weights, which
// are 8 columns of 16 rows, with 8-bit activations. Bytes never bound it: 25 to 55 bytes take 4 to 8 cycles at 25 GB/s.
//
//     entries of 8 bytes   32 instructions load 16 indices and as many entries, 8 join and 4 order them; 28 give activations the
//                          signs and multiply; with the rest 78: 13 cycles. 16 loads of vectors and 2 of activations: 9. To
//                          decode the codes takes 20 (IQ2_XXS) to 30 (IQ2_S, IQ1_M) instructions more: 16 to 18. Measured:
//                          IQ2_XXS 19, IQ2_XS and IQ2_S 24 to 25, IQ1_S 18.5, IQ1_M 22.5. Sixteen instructions more, for half as
//                          many loads of indices, made it 2.7 cycles slower: instructions are what bounds it.
//     entries of 4 bytes   32 loads of entries: 16 cycles; 16 load, 32 take apart two indices each, 28 join entries, 28 multiply:
//                          140 instructions, 23 cycles; with the codes 27. Measured: IQ3_XXS 31, IQ3_S 34.
//
// What was tried there and lost: vpgatherdq takes 5 cycles for four entries, which loads and joins do in 2; vpinsrd instead of a
// load of a whole register and a blend, 2 to 3 cycles more; fetching into the first cache, 0.5. Where codebooks of 4 bytes fit into
// registers, they are searched there instead (simd/codebook_words.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/entry.h"
#include "formats/grid.h"
#include "kernels/sinks.h"
#include "machine/encoding.h"

namespace clarion {

template <typename F>
inline constexpr bool has_signs = F::shift == 0;

// Whether sums take signs apart from magnitudes.
template <typename Accumulator>
inline constexpr bool multiplies_signs = requires(Accumulator sum, simd::u8x64 w, simd::i32x16 flags,
                                                  const uint8_t* quads) { sum.dot2(w, w, flags, quads); };
template <typename F, typename Accumulator>
struct GridSums {
    using Type = Accumulator;
};
template <typename F, typename Accumulator>
    requires has_signs<F> && requires { typename Accumulator::Signed; }
struct GridSums<F, Accumulator> {
    using Type = typename Accumulator::Signed;
};

template <typename E, bool with_signs>
struct Grid {
    using Entry = E;
    static constexpr bool signs = with_signs;

    const E* entries;
    const E* magnitudes;          // the same without the offset, where flags are signs
    simd::PackedCodebook packed;  // of entries of 4 bytes
    int64_t bytes;                // of a block
    int group;
    int32_t offset;
    uint8_t shift;
    void (*codes)(const uint8_t* panel, int64_t at, const Codes&);
};
template <typename F>
constexpr simd::PackedCodebook packed_of() {
    if constexpr (sizeof(typename F::Entry) == 4) return F::packed();
    return {};
}
template <typename F>
constexpr const typename F::Entry* magnitudes_of() {
    if constexpr (has_signs<F>) return F::magnitudes();
    return nullptr;
}
template <typename F>
inline constexpr Grid<typename F::Entry, has_signs<F>> grid_of = {
    F::grid(), magnitudes_of<F>(), packed_of<F>(), F::bytes, F::group, F::offset, F::shift, F::codes};

// The codes of one block of 16 rows: indices of entries, and flags.
template <typename Grid>
struct GridBlock {
    using Entry = typename Grid::Entry;
    static constexpr bool signs = Grid::signs;

    alignas(64) uint32_t index[sizeof(Entry) == 8 ? 16 * 16 : 16 * 32];
    alignas(64) int32_t flags[16 * 8];

    static constexpr bool packed =
        sizeof(Entry) == 4 &&
        requires(simd::PackedCodebook codebook, Entry* index) { look_up_packed(codebook, index, 0); };

    // The entries of columns 8 step .. 8 step + 7, of one of the grid's tables.
    [[gnu::always_inline]] void entries(const Entry* table, int64_t step, int nth, simd::u8x64& w0,
                                        simd::u8x64& w1) const {
        if constexpr (sizeof(Entry) == 8)
            simd::look_up_rows(table, index + 8 * step + 16 * (nth % 2), nth / 2, w0, w1);
        else
            simd::look_up_pairs(table, index + 16 * (step + nth), w0, w1);
    }
    void take(const Grid& grid, const uint8_t* panel, int64_t at, float* scale) {
        grid.codes(panel, at, {index, flags, scale});
        if constexpr (packed) look_up_packed(grid.packed, index, 32);
    }
    // The weights of columns 8 step .. 8 step + 7. The lowest bits of `set` are their flags.
    [[gnu::always_inline]] void columns(const Grid& grid, int64_t step, int nth, simd::i32x16 set,
                                        simd::u8x64& w0, simd::u8x64& w1) const {
        if constexpr (takes_registers<simd::high_accumulator>)
            columns_called(grid, step, nth, set, w0, w1);
        else
            columns_here(grid, step, nth, set, w0, w1);
    }
    [[gnu::noinline]] void columns_called(const Grid& grid, int64_t step, int nth, const simd::i32x16& set,
                                          simd::u8x64& w0, simd::u8x64& w1) const {
        columns_here(grid, step, nth, set, w0, w1);
    }
    [[gnu::always_inline]] void columns_here(const Grid& grid, int64_t step, int nth, simd::i32x16 set,
                                             simd::u8x64& w0, simd::u8x64& w1) const {
        if constexpr (sizeof(Entry) == 8) {
            entries(grid.entries, step, nth, w0, w1);
        } else {
            if constexpr (packed)
                unpack_two(grid.packed, index + 16 * (step + nth), w0, w1);
            else
                simd::look_up_pairs(grid.entries, index + 16 * (step + nth), w0, w1);
        }
        if constexpr (signs)
            simd::negate_flagged(w0, w1, set, static_cast<uint8_t>(2 * grid.offset));
        else
            simd::shift_flagged(w0, w1, set, grid.shift);
    }
};

template <typename Grid>
[[gnu::noinline]] void decode_grid(const uint8_t* panel, int64_t blocks, const Tile& tile, const Grid& grid) {
    GridBlock<Grid> block;
    uint8_t* u = tile.u;
    for (int64_t b = 0; b < blocks; ++b) {
        block.take(grid, panel, b * grid.bytes, tile.scale + b * (16 * 256 / grid.group));
        for (int64_t step = 0; step < 32; step += 4) {
            simd::i32x16 set = simd::load(block.flags + 4 * step);
            for (int nth = 0; nth < 4; ++nth, u += 128) {
                simd::u8x64 w0, w1;
                block.columns(grid, step, nth, set, w0, w1);
                set = simd::shift_right<8>(set);
                simd::store_bytes(u, w0);
                simd::store_bytes(u + 64, w1);
            }
        }
    }
}

// Whether the steps of a group are unrolled, so that the places of their indices are constants. With entries of 4 bytes, or
// several registers for each vector, a step is long enough. With 16 registers and activations of 16 bits an unrolled group
// keeps its constants and sums in memory (AVX2: 35 cycles for 128 weights instead of 25).
template <typename Accumulator, typename Entry>
inline constexpr bool unrolls = sizeof(Entry) == 8 && !takes_registers<simd::high_accumulator> &&
                                (simd::live_groups_high >= 8 || Accumulator::quad_bytes == 4);

// Adds the products of columns 8 (step + nth) .. 8 (step + nth) + 7.
template <typename Accumulator, typename Grid>
[[gnu::always_inline]] inline void multiply_eight(const Grid& grid, const GridBlock<Grid>& block,
                                                  int64_t step, int nth, simd::i32x16 set,
                                                  const uint8_t* quads, Accumulator& acc) {
    simd::u8x64 w0, w1;
    if constexpr (multiplies_signs<Accumulator>) {
        block.entries(grid.magnitudes, step, nth, w0, w1);
        acc.dot2(w0, w1, set, quads);
    } else {
        block.columns(grid, step, nth, set, w0, w1);
        acc.dot2(w0, w1, quads);
    }
}

// Does what multiply_one of kernels/sinks.h does. Its sums are those of the product over tiles, too.
template <typename Accumulator, int group, typename Grid>
[[gnu::noinline]] void multiply_one_grid(const uint8_t* panel, const Format::Columns& columns,
                                         const std::byte* activation, const Fetch& fetch, float* sums,
                                         const Grid& grid) {
    constexpr int groups = 32 / group, n = group / 8;
    const EncodedLayout layout(Accumulator::quad_bytes == 4 ? Kind::fast : Kind::high, columns.n_cols);
    const int64_t first = columns.first, end = first + columns.n;
    const auto* quads = reinterpret_cast<const uint8_t*>(activation) + first / 4 * Accumulator::quad_bytes;
    const auto* a_scale = reinterpret_cast<const float*>(activation + layout.scale) + first / 32;
    const auto* a_sum = reinterpret_cast<const int32_t*>(activation + layout.sum(group)) + first / group;
    const int32_t unbias = multiplies_signs<Accumulator> ? 0 : Accumulator::bias - grid.offset;
    const uint8_t* ahead = fetch.first;
    const int64_t apart = grid.bytes / 2;  // 16 rows, 32 steps
    alignas(64) float scales[16 * 256 / group];
    GridBlock<Grid> block;
    simd::f32x16 total = simd::load(sums);
    for (int64_t at = 0, column = first; column < end; at += grid.bytes, column += 256) {
        block.take(grid, panel, at, scales);
        const float* scale = scales;
        for (int64_t step = 0; step < 32; step += 4) {
            simd::i32x16 set = simd::load(block.flags + 4 * step);
            simd::f32x16 sum = simd::zero();
            const simd::f32x16 by = simd::set1(*a_scale++);
            const auto add = [&](simd::i32x16 products) CLARION_INLINE {
                const simd::f32x16 x = simd::to_f32(products), s = simd::load(scale);
                if constexpr (groups == 1)
                    total = simd::fma(x, simd::mul(s, by), total);
                else
                    sum = simd::fma(x, s, sum);
                scale += 16;
            };
            if constexpr (unrolls<Accumulator, typename Grid::Entry>) {
                unrolled<groups>([&]<int g>() CLARION_INLINE {
                    auto acc = Accumulator::start(unbias * *a_sum++);
                    unrolled<n>([&]<int i>() CLARION_INLINE {
                        constexpr int nth = g * n + i;
                        simd::prefetch(ahead + i * apart);
                        multiply_eight(grid, block, step, nth, set, quads + 2 * nth * Accumulator::quad_bytes,
                                       acc);
                        set = simd::shift_right<8>(set);
                    });
                    ahead += n * apart;
                    add(acc.total());
                });
                quads += 8 * Accumulator::quad_bytes;
            } else {
                for (int nth = 0; nth < 4;) {
                    auto acc = Accumulator::start(unbias * *a_sum++);
                    for (const int end = nth + n; nth < end; ++nth) {
                        simd::prefetch(ahead);
                        ahead += apart;
                        multiply_eight(grid, block, step, nth, set, quads, acc);
                        set = simd::shift_right<8>(set);
                        quads += 2 * Accumulator::quad_bytes;
                    }
                    add(acc.total());
                }
            }
            if constexpr (groups != 1) total = simd::fma(sum, by, total);
        }
    }
    simd::store(sums, total);
}

}  // namespace clarion
