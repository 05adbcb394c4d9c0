// The product of one panel, 16 rows of a weight matrix, with any number of encoded activations.
//
// This is the only place where weights meet activations: matrix-vector and matrix-matrix products, experts
// and small batches are all this call, so each sum is formed by the same instructions in the same order
// whatever ran beside it.
//
// A block of columns is decoded into a tile that stays in L1 (kernels/format_table.h) and multiplied with all
// tokens before the next block. Sums of a token are one vector, a row in each lane:
//
//     int32   over the columns that share scales (exact: at most 255 * 32639 * 32 = 2.7e8 < 2^31)
//     float   in column order, one fused multiply-add for each 32 columns, whose activations share a scale: with the product
//             of both scales or, where weights have two of them in 32 columns, of both sums times these with the activations'
//             scale; and one for each minimum
//
// Kind::f32 multiplies floats: sums over 32 columns first, then those in order. Float formats with Kind::f32:
// kernels/float_product.h; BF16 with Kind::bf16: simd/bf16_products.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/entry.h"
#include "machine/encoding.h"
#include "machine/tiling.h"

namespace clarion {

// Encoded rows: row t lies at data + (index ? index[t] / divisor : t) * stride.
struct ActivationRows {
    Kind kind;
    const std::byte* data;
    int64_t stride;
    const int32_t* index = nullptr;
    int32_t divisor = 1;

    const std::byte* row(int64_t t) const { return data + (index ? index[t] / divisor : t) * stride; }
};

// Whether a weight of this format may meet such activations: integer formats all but bf16, float formats f32, and BF16 also
// bf16 where the instruction set has products of them.
bool multiplies(const Format& format, Kind kind);

// Tokens that one call takes at most.
inline constexpr int64_t most_tokens = 256;

size_t product_scratch_bytes();

// A matrix: rows as in a file, or panels (kernels/panel.h).
struct WeightRows {
    const Format& format;
    const uint8_t* data;
    int64_t n_rows, n_cols;
    bool panels;
};

// sums[t][r] = row (first_row + r) of the weight times activation t, for n_tokens <= most_tokens.
// Lanes past the matrix's last row are undefined.
void panel_product(const Tiling& tiling, const WeightRows& weight, int64_t first_row,
                   const ActivationRows& activations, int64_t n_tokens, std::byte* scratch, float* sums);

// Where sums may be kept within the scratch of panel_product.
float* product_sums(std::byte* scratch);

}  // namespace clarion
