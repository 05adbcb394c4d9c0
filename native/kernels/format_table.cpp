#include "kernels/format_table.h"

#include <iterator>

#include "formats/table.h"
#include "kernels/sinks.h"

namespace clarion {

namespace {

template <typename F>
constexpr Format row() {
    Format f{};
    f.id = F::id;
    f.name = F::name;
    f.block = F::block;
    f.bytes = F::bytes;
    f.dequantize = F::dequantize;
    if constexpr (requires { F::group; }) {
        f.group = F::group;
        f.offset = F::offset;
        f.has_min = F::has_min;
        f.wide = F::wide;
        f.decode = decode_tile<F>;
        if constexpr (simd::one_token_direct) {
            f.one_fast = multiply_one<F, simd::fast_accumulator<F::wide>>;
            f.one_high = multiply_one<F, simd::high_accumulator>;
        }
    } else {
        f.decode_f32 = decode_floats<F>;
    }
    return f;
}

template <typename... F>
struct Rows {
    static constexpr Format rows[] = {row<F>()...};
};
template <typename... F>
constexpr const Format (&rows_of(FormatList<F...>)) [sizeof...(F)] { return Rows<F...>::rows; }

constexpr auto& table = rows_of(AllFormats{});

}  // namespace

const Format* formats_begin() { return std::begin(table); }
const Format* formats_end() { return std::end(table); }

const Format* find_format(int id) {
    for (const Format& f : table)
        if (f.id == id) return &f;
    return nullptr;
}

}  // namespace clarion
