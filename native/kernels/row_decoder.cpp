#include "kernels/row_decoder.h"

#include <algorithm>

#include "kernels/panel.h"

namespace clarion {

namespace {

constexpr int64_t most_columns = most_tile_columns, most_groups = most_columns / 16;

// 16 rows of 32-bit elements, `stride` bytes apart, to columns: [bytes/4][16], in steps of four columns.
void transpose(const void* rows, int64_t stride, int64_t bytes, void* columns) {
    const simd::Rows16 from{static_cast<const uint8_t*>(rows), stride};
    auto* to = static_cast<uint8_t*>(columns);
    for (int64_t k = 0; k < bytes; k += 16) {
        simd::u8x64 out[4];
        simd::transpose_16(from, k, out);
        for (int c = 0; c < 4; ++c) simd::store_bytes(to + 16 * k + 64 * c, out[c]);
    }
}

// Weights at(i), whose group g has its scale and minimum at g * step.
template <typename At>
void to_floats(const Format& format, int64_t columns, const At& at, int64_t step, const float* scale,
               const float* neg_min, float* x) {
    for (int64_t i = 0; i < columns; ++i) {
        const int64_t g = i / format.group * step;
        x[i] = scale[g] * static_cast<float>(at(i) - format.offset);
        if (format.has_min) x[i] += neg_min[g];
    }
}

}  // namespace

void decode_rows(const Format& format, simd::Rows16 rows, int64_t blocks, const Tile& tile) {
    alignas(64) uint8_t u[16 * most_columns];
    alignas(64) float scale[16 * most_groups], neg_min[16 * most_groups];
    const int64_t columns = blocks * format.block;
    for (int r = 0; r < 16; ++r)
        format.unpack(rows.base + r * rows.stride, blocks, u + r * most_columns, scale + r * most_groups,
                      neg_min + r * most_groups);
    transpose(u, most_columns, columns, tile.u);
    transpose(scale, 4 * most_groups, columns / format.group * 4, tile.scale);
    if (format.has_min) transpose(neg_min, 4 * most_groups, columns / format.group * 4, tile.neg_min);
}

void dequantize_lane(const Format& format, const uint8_t* panel, int lane, int64_t n, float* x) {
    alignas(64) uint8_t u[16 * most_columns];
    alignas(64) float scale[16 * most_groups], neg_min[16 * most_groups];
    for (int64_t k = 0; k < n; k += most_columns) {
        const int64_t columns = std::min(most_columns, n - k);
        format.decode_panel(panel + 16 * format.row_bytes(k), columns / format.block, {u, scale, neg_min});
        to_floats(
            format, columns, [&](int64_t i) { return u[i / 4 * 64 + 4 * lane + i % 4]; }, 16, scale + lane,
            neg_min + lane, x + k);
    }
}

void dequantize(const Format& format, const uint8_t* row, int64_t n, float* x) {
    if (!format.integer()) {
        format.dequantize_floats(row, n, x);
        return;
    }
    if constexpr (simd::live_groups > 0) {  // the row 16 times
        alignas(64) uint8_t panel[most_panel_bytes];
        for (int64_t k = 0; k < n; k += most_columns) {
            const int64_t columns = std::min(most_columns, n - k);
            interleave(format, {row + format.row_bytes(k), 0}, columns / format.block, panel);
            dequantize_lane(format, panel, 0, columns, x + k);
        }
    } else {
        uint8_t u[most_columns];
        float scale[most_groups], neg_min[most_groups];
        for (int64_t k = 0; k < n; k += most_columns) {
            const int64_t columns = std::min(most_columns, n - k);
            format.unpack(row + format.row_bytes(k), columns / format.block, u, scale, neg_min);
            to_floats(format, columns, [&](int64_t i) { return u[i]; }, 1, scale, neg_min, x + k);
        }
    }
}

}  // namespace clarion
