// Makes the run-time entry of a format (formats/entry.h) from its header: the kernels, written once, for this format.
#pragma once

#include <algorithm>
#include <array>
#include <string>

#include "formats/entry.h"
#include "formats/table.h"
#include "kernels/float_product.h"
#include "kernels/grid_product.h"
#include "kernels/per_register.h"
#include "kernels/row_decoder.h"
#include "kernels/sinks.h"

namespace clarion {

template <typename F>
void decode_codes(const uint8_t* panel, int64_t blocks, const Tile& tile) {
    decode_grid(panel, blocks, tile, grid_of<F>);
}
template <typename F, typename Accumulator>
void multiply_one_codes(const uint8_t* panel, const Format::Columns& columns, const std::byte* activation,
                        const Fetch& fetch, float* sums) {
    multiply_one_grid<typename GridSums<F, Accumulator>::Type, F::group>(panel, columns, activation, fetch,
                                                                         sums, grid_of<F>);
}

template <typename F>
constexpr Format format_entry() {
    Format f{};
    f.id = F::id;
    std::copy_n(F::name, std::char_traits<char>::length(F::name), f.name);
    f.block = F::block;
    f.bytes = F::bytes;
    if constexpr (requires { F::group; }) {
        f.group = F::group;
        f.offset = F::offset;
        f.has_min = F::has_min;
        f.largest = F::largest;
        if constexpr (requires { F::odd_last; }) f.odd_last = F::odd_last;
        if constexpr (simd::live_groups == 0) f.unpack = unpack_blocks<F>;
    } else {
        f.multiply_one_float = multiply_one_float<F>;
        f.read_floats = read_floats<F>;
        f.dequantize_floats = F::dequantize;
    }
    if constexpr (requires { F::live; } && simd::live_groups > 0) {
        using Fast = simd::fast_accumulator<is_wide(F::largest)>;
        using High = simd::high_accumulator;
        constexpr int sums = OneToken<F, High>::sums;
        constexpr bool fast = sums <= simd::live_groups, high = sums <= simd::live_groups_high;
        if constexpr (takes_registers<High>) {
            f.decode_panel = decode_tile_per_register<F, High>;
            if constexpr (fast) f.one_fast = multiply_one_per_register<F, Fast>;
            if constexpr (high) f.one_high = multiply_one_per_register<F, High>;
        } else {
            f.decode_panel = decode_tile<F>;
            if constexpr (fast) f.one_fast = multiply_one<F, Fast>;
            if constexpr (high) f.one_high = multiply_one<F, High>;
        }
    }
    if constexpr (requires { F::grid(); } && simd::live_groups > 0) {
        f.decode_panel = decode_codes<F>;
        f.one_fast = multiply_one_codes<F, simd::fast_accumulator<is_wide(F::largest)>>;
        f.one_high = multiply_one_codes<F, simd::high_accumulator>;
    }
    return f;
}

template <typename... F>
constexpr std::array<Format, sizeof...(F)> format_entries(FormatList<F...>) {
    return {format_entry<F>()...};
}

}  // namespace clarion
