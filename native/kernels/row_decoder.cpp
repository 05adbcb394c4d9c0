#include "kernels/row_decoder.h"

#include <algorithm>

namespace clarion {

namespace {

constexpr int64_t most_columns = 512, most_groups = most_columns / 16;

// 16 rows of 32-bit elements, `stride` bytes apart, to columns: [bytes/4][16], in steps of four columns.
void transpose(const void* rows, int64_t stride, int64_t bytes, void* columns) {
    const simd::Panel panel{static_cast<const uint8_t*>(rows), stride};
    auto* to = static_cast<uint8_t*>(columns);
    for (int64_t k = 0; k < bytes; k += 16) {
        simd::u8x64 out[4];
        simd::transpose_16(panel, k, out);
        for (int c = 0; c < 4; ++c) simd::store_bytes(to + 16 * k + 64 * c, out[c]);
    }
}

}  // namespace

void decode_rows(const Format& format, simd::Panel panel, int64_t blocks, const Tile& tile) {
    alignas(64) uint8_t u[16 * most_columns];
    alignas(64) float scale[16 * most_groups], neg_min[16 * most_groups];
    const int64_t columns = blocks * format.block;
    for (int r = 0; r < 16; ++r)
        format.unpack(panel.base + r * panel.stride, blocks, u + r * most_columns, scale + r * most_groups,
                      neg_min + r * most_groups);
    transpose(u, most_columns, columns, tile.u);
    transpose(scale, 4 * most_groups, columns / format.group * 4, tile.scale);
    if (format.has_min) transpose(neg_min, 4 * most_groups, columns / format.group * 4, tile.neg_min);
}

void dequantize_row(const Format& format, const uint8_t* row, int64_t n, float* x) {
    uint8_t u[most_columns];
    float scale[most_groups], neg_min[most_groups];
    for (int64_t k = 0; k < n; k += most_columns) {
        const int64_t columns = std::min(most_columns, n - k);
        format.unpack(row + format.row_bytes(k), columns / format.block, u, scale, neg_min);
        for (int64_t i = 0; i < columns; ++i) {
            const int64_t g = i / format.group;
            x[k + i] = scale[g] * static_cast<float>(u[i] - format.offset);
            if (format.has_min) x[k + i] += neg_min[g];
        }
    }
}

}  // namespace clarion
