// Products of a tile with vectors of SVE, whatever their length. Registers without a size are no members of structs: the
// vocabulary's vectors are those of Advanced SIMD, 128 bits each, and what gains from longer ones is this, where tiles and
// sums lie in memory. A pass over the tile takes as many of its 16 rows as a register has lanes, all of them from 512 bits
// on; predicates leave out the lanes beyond.
//
// How weights meet activations is a parameter, Dots, with two vectors of sums for each token. It takes 16 columns at a time:
// w0 .. w3, four columns of each row, as prepare() made them of the tile, and the token's four quads.
#pragma once

#include <arm_sve.h>

#include <algorithm>
#include <type_traits>

#include "simd/tile.h"

namespace clarion::simd::sve {

// For lambdas over vectors: registers do not survive a call.
#define CLARION_SVE_INLINE __attribute__((always_inline))

// Calls body(v..., rest...) with n vectors v of this value: no array can hold them.
template <int n, typename Vector, typename Body, typename... Rest>
CLARION_SVE_INLINE inline void with(Vector value, const Body& body, Rest&... rest) {
    if constexpr (n == 0) {
        body(rest...);
    } else {
        Vector next = value;
        with<n - 1>(value, body, rest..., next);
    }
}

// 16 bytes in each 128 bits, as indexed products want them.
CLARION_SVE_INLINE inline svint8_t replicate(const uint8_t* p) {
    return svld1rq_s8(svptrue_b8(), reinterpret_cast<const int8_t*>(p));
}

template <typename Dots, int n>
void multiply_tokens(const TileProduct& p, int64_t t) {
    const int32_t unbias = Dots::bias - p.offset;
    const int64_t group_quads = p.group / 4, groups = 32 / p.group;  // that share the activations' scale
    for (int row = 0; row < 16; row += static_cast<int>(svcntw())) {
        const svbool_t rows = svwhilelt_b32_s32(row, 16), bytes = svwhilelt_b8_s32(4 * row, 64);
        const auto body = [&](auto&... total) CLARION_SVE_INLINE {
            int i = 0;
            ((total = svld1_f32(rows, p.sums + 16 * (t + i++) + row)), ...);
            for (int64_t end = groups; end <= p.columns / p.group; end += groups) {
                const auto block = [&](auto&... sum) CLARION_SVE_INLINE {
                    for (int64_t g = end - groups; g < end; ++g) {
                        const auto group = [&](auto&... first) CLARION_SVE_INLINE {
                            const auto both = [&](auto&... second) CLARION_SVE_INLINE {
                                i = 0;
                                (Dots::start(unbias == 0 ? 0 : unbias * p.token_sum(t + i++, g), first,
                                             second),
                                 ...);
                                for (int64_t q = g * group_quads; q < (g + 1) * group_quads; q += 4) {
                                    const uint8_t* u = p.u + 64 * q + 4 * row;
                                    svuint8_t w0 = svld1_u8(bytes, u), w1 = svld1_u8(bytes, u + 64);
                                    svuint8_t w2 = svld1_u8(bytes, u + 128), w3 = svld1_u8(bytes, u + 192);
                                    Dots::prepare(w0, w1);
                                    Dots::prepare(w2, w3);
                                    i = 0;
                                    (Dots::add(w0, w1, w2, w3, p.token_quads(t + i++) + q * Dots::quad_bytes,
                                               first, second),
                                     ...);
                                }
                                const svfloat32_t scale = svld1_f32(rows, p.scale + 16 * g + row);
                                const auto x = [&](auto& a, auto& b) CLARION_SVE_INLINE {
                                    return svcvt_f32_s32_x(rows, Dots::total(a, b));
                                };
                                i = 0;
                                if (groups == 1)
                                    ((total =
                                          svmla_f32_x(rows, total, x(first, second),
                                                      svmul_n_f32_x(rows, scale, p.token_scale(t + i++, g)))),
                                     ...);
                                else
                                    ((sum = svmla_f32_x(rows, sum, x(first, second), scale)), ...);
                            };
                            with<n>(svdup_n_s32(0), both);
                        };
                        with<n>(svdup_n_s32(0), group);
                    }
                    if (groups == 1) return;
                    i = 0;
                    ((total = svmla_n_f32_x(rows, total, sum, p.token_scale(t + i++, end - groups))), ...);
                };
                with<n>(svdup_n_f32(0), block);
                if (p.neg_min == nullptr) continue;
                for (int64_t g = end - groups; g < end; ++g) {
                    const svfloat32_t neg_min = svld1_f32(rows, p.neg_min + 16 * g + row);
                    i = 0;
                    ((total = svmla_n_f32_x(rows, total, neg_min, p.token_fsum(t + i++, g))), ...);
                }
            }
            i = 0;
            (svst1_f32(rows, p.sums + 16 * (t + i++) + row, total), ...);
        };
        with<n>(svdup_n_f32(0), body);
    }
}

// Sums of 32 columns first, then those in order, as the vocabulary's vectors do it.
template <int n>
void multiply_tokens(const FloatTileProduct& p, int64_t t) {
    for (int row = 0; row < 16; row += static_cast<int>(svcntw())) {
        const svbool_t rows = svwhilelt_b32_s32(row, 16);
        const auto body = [&](auto&... total) CLARION_SVE_INLINE {
            int i = 0;
            ((total = svld1_f32(rows, p.sums + 16 * (t + i++) + row)), ...);
            for (int64_t k = 0; k < p.columns; k += 32) {
                const auto block = [&](auto&... sum) CLARION_SVE_INLINE {
                    for (int64_t c = k; c < std::min(k + 32, p.columns); ++c) {
                        const svfloat32_t w = svld1_f32(rows, p.weights + 16 * c + row);
                        i = 0;
                        ((sum = svmla_n_f32_x(rows, sum, w, p.token(t + i++)[c])), ...);
                    }
                    ((total = svadd_f32_x(rows, total, sum)), ...);
                };
                with<n>(svdup_n_f32(0), block);
            }
            i = 0;
            (svst1_f32(rows, p.sums + 16 * (t + i++) + row, total), ...);
        };
        with<n>(svdup_n_f32(0), body);
    }
}

// Six tokens have six to twelve independent sums, for a latency of four at two a cycle, and fill 29 of 32 registers.
template <typename Dots>
int64_t multiply_all(const TileProduct& p) {
    int64_t t = 0;
    for (; t + 6 <= p.n_tokens; t += 6) multiply_tokens<Dots, 6>(p, t);
    for (; t < p.n_tokens; ++t) multiply_tokens<Dots, 1>(p, t);
    return t;
}

}  // namespace clarion::simd::sve

namespace clarion::simd {

inline int64_t multiply_tile(const FloatTileProduct& p, std::type_identity<float>) {
    int64_t t = 0;
    for (; t + 8 <= p.n_tokens; t += 8) sve::multiply_tokens<8>(p, t);
    for (; t < p.n_tokens; ++t) sve::multiply_tokens<1>(p, t);
    return t;
}

}  // namespace clarion::simd
