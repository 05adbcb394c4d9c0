#include "kernels/per_register.h"

#include <algorithm>

#include "machine/tiling.h"

namespace clarion {

void multiply_per_register(const RegisterProduct& product, const uint8_t* panel,
                           const Format::Columns& columns, const std::byte* activation, const Fetch& fetch,
                           float* sums) {
    alignas(64) float scale[most_tile_columns],
        neg_min[most_tile_columns];  // [columns/group][16], group >= 16
    alignas(64) int32_t group_sums[most_tile_columns];
    const EncodedLayout layout(product.kind, columns.n_cols);
    const int64_t quad_bytes = product.kind == Kind::fast ? 4 : 8, rows = 16 / product.registers;
    const auto* a_scales = reinterpret_cast<const float*>(activation + layout.scale);
    const auto* a_fsums = reinterpret_cast<const float*>(activation + layout.fsum(product.group));
    const auto* a_sums = reinterpret_cast<const int32_t*>(activation + layout.sum(product.group));
    simd::f32x16 total = simd::load(sums);
    Fetch ahead = fetch;
    for (int64_t column = columns.first, end = column + columns.n; column < end;) {
        const int64_t n = std::min(most_tile_columns, end - column), blocks = n / product.block;
        const int64_t bytes = 16 * blocks * product.bytes, first = column / product.group;
        product.scales(panel, blocks, scale, neg_min);
        Fetch lines = ahead;
        for (int64_t r = 0; r < product.registers; ++r, lines.advance(64))
            product.multiply(panel + 4 * rows * r, blocks,
                             reinterpret_cast<const uint8_t*>(activation) + column / 4 * quad_bytes,
                             a_sums + first, lines, group_sums + rows * r);
        const int64_t groups = activation_block / product.group;
        for (int64_t g = 0; g < n / product.group; g += groups) {  // the roundings of the product over tiles
            const simd::f32x16 by = simd::set1(a_scales[(column + g * product.group) / activation_block]);
            const simd::f32x16 x = simd::to_f32(simd::load(group_sums + 16 * g));
            if (groups == 1) {
                total = simd::fma(x, simd::mul(simd::load(scale + 16 * g), by), total);
            } else {
                const simd::f32x16 second = simd::to_f32(simd::load(group_sums + 16 * g + 16));
                const simd::f32x16 sum = simd::mul(x, simd::load(scale + 16 * g));
                total = simd::fma(simd::fma(second, simd::load(scale + 16 * g + 16), sum), by, total);
            }
            for (int64_t h = g; product.has_min && h < g + groups; ++h)
                total = simd::fma(simd::load(neg_min + 16 * h), simd::set1(a_fsums[first + h]), total);
        }
        panel += bytes;
        ahead.advance(bytes);
        column += n;
    }
    simd::store(sums, total);
}

}  // namespace clarion
