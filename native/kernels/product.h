// Multiplies one panel, 16 rows of a weight matrix, with any number of encoded activations.
//
// Weights meet activations here and nowhere else. Products of a matrix with a vector, products of two matrices, experts and
// small batches all call it. So the same instructions form each sum in the same order, whatever ran beside it.
//
// A block of columns is decoded into a tile, which stays in L1, and multiplied with all tokens; then comes the next block. The
// sums of a token are one vector, with a row in each lane. A sum is made of
//
//     int32   sums over the columns that share scales. They are exact: at most 255 * 32639 * 32 = 2.7e8 < 2^31
//     float   one fused multiply-add for each 32 columns, in the order of the columns. These 32 columns of the activations
//             share a scale. Where the weights also have one scale for them, the integer sum is multiplied with the product
//             of both scales. Where the weights have two scales, each integer sum is multiplied with its own, and the sum of
//             both with the activations' scale. Each minimum adds one more fused multiply-add
//
// Octets of Kind::fast (machine/encoding.h) are multiplied as Kind::high is. They have a second sum of floats, which is added at
// the end: one fused multiply-add for each octet, in the order of the columns.
//
// Kind::f32 multiplies floats: it sums 32 columns, then adds these sums in order. kernels/float_product.h has the products of
// float formats with Kind::f32, simd/bf16_products.h those of BF16 with Kind::bf16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/entry.h"
#include "machine/encoding.h"
#include "machine/tiling.h"

namespace clarion {

struct OctetList;

// Rows of encoded activations. Row t lies at data + (index ? index[t] / divisor : t) * stride.
struct ActivationRows {
    Kind kind;
    const std::byte* data;
    int64_t stride;
    const int32_t* index = nullptr;
    int32_t divisor = 1;
    const OctetList* octets = nullptr;  // of these rows, where there are any

    const std::byte* row(int64_t t) const { return data + (index ? index[t] / divisor : t) * stride; }
};

// Whether weights of this format can be multiplied with such activations. Integer formats multiply all kinds but bf16. Float
// formats multiply f32; BF16 also multiplies bf16, on instruction sets that have such products.
bool multiplies(const Format& format, Kind kind);

// How many tokens one call takes at most.
inline constexpr int64_t most_tokens = 256;

size_t product_scratch_bytes();

// A matrix, which lies as rows, as in a file, or as panels (kernels/panel.h).
struct WeightRows {
    const Format& format;
    const uint8_t* data;
    int64_t n_rows, n_cols;
    bool panels;
};

// Computes sums[t][r]: row (first_row + r) of the weight times activation t. n_tokens is at most most_tokens. Lanes beyond the
// matrix's last row are undefined.
void panel_product(const Tiling& tiling, const WeightRows& weight, int64_t first_row,
                   const ActivationRows& activations, int64_t n_tokens, std::byte* scratch, float* sums);

// Where the scratch of panel_product has room for the sums.
float* product_sums(std::byte* scratch);

}  // namespace clarion
