// Products of a whole tile with many tokens, for registers that the vocabulary cannot describe: the matrices of AMX, the
// vectors without a size of SVE, the sums of AVX2 that 16 bits hold for a while. A header that has them says so with any of
//
//     int64_t multiply_tile(const TileProduct&, std::type_identity<Accumulator>);
//     int64_t multiply_tile(const TileProduct&, const Fetch&, std::type_identity<Accumulator>);
//     int64_t multiply_tile(const FloatTileProduct&, std::type_identity<float>);
//
//     void multiply_bf16(Rows16, int64_t n_cols, const std::byte* const* tokens, int64_t n_tokens, Fetch, float* sums);
//     void store_bf16(uint16_t*, f32x16);
//
// The last two are for BF16 weights, with tokens that are BF16 too, and what encodes them. kernels/product.cpp calls the
// others first. Those return how many tokens they took, from the first on; the one with a Fetch calls
// fetch.tokens(first, end) before it takes those. The vectors of the vocabulary take the others, so the sums of both have the
// same bits: integers are exact, and a sum of floats has the same operations in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace clarion::simd {

// sums[t][r] += row r of the tile times columns `first` .. of token t.
struct TileProduct {
    static constexpr int64_t most_columns = 512;

    const uint8_t* u;      // [columns/4][16 rows][4]
    const float* scale;    // [columns/group][16]
    const float* neg_min;  // the same, or null
    int64_t columns;
    int group;        // columns that share a scale: 16 or 32
    int32_t offset;   // of each weight
    int32_t largest;  // and what it is at most

    // Where a token's row has what belongs to `first`: quads, the scale of each 32 columns, and for each group the sum of
    // its activations, as integers and scaled (kernels/activations.h).
    int64_t quads, a_scale, a_sum, a_fsum;
    const std::byte* const* tokens;
    int64_t n_tokens;
    float* sums;  // [n_tokens][16]

    const uint8_t* token_quads(int64_t t) const {
        return reinterpret_cast<const uint8_t*>(tokens[t] + quads);
    }
    float token_scale(int64_t t, int64_t g) const {
        return reinterpret_cast<const float*>(tokens[t] + a_scale)[g * group / 32];
    }
    int32_t token_sum(int64_t t, int64_t g) const {
        return reinterpret_cast<const int32_t*>(tokens[t] + a_sum)[g];
    }
    float token_fsum(int64_t t, int64_t g) const {
        return reinterpret_cast<const float*>(tokens[t] + a_fsum)[g];
    }
};

struct FloatTileProduct {
    const float* weights;  // [columns][16]
    int64_t first, columns;
    const std::byte* const* tokens;  // rows of floats
    int64_t n_tokens;
    float* sums;  // [n_tokens][16]

    const float* token(int64_t t) const { return reinterpret_cast<const float*>(tokens[t]) + first; }
};

}  // namespace clarion::simd
