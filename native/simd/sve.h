// AArch64 with SVE of any length (A64FX, Neoverse V1): tiles by its dot products of signed bytes, the rest by Advanced SIMD
// of any processor, since those of A64FX have no dot products.
#pragma once

#include "simd/byte_quads.h"
#include "simd/neon_smull.h"
#include "simd/sve_products.h"

namespace clarion::simd {

struct high_accumulator {
    static constexpr int32_t bias = fast_sums::bias;
    static constexpr int quad_bytes = 8;
    fast_sums upper, lower;

    static high_accumulator start(int32_t initial) {
        return {fast_sums::start(0), fast_sums::start(initial)};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const uint32x4_t q = vreinterpretq_u32_u8(vld1q_u8(quads));  // upper, lower, upper, lower
        uint8_t apart[16];
        vst1q_u8(apart, vreinterpretq_u8_u32(vuzp1q_u32(q, vextq_u32(q, q, 1))));
        upper.dot2(w0, w1, apart);
        lower.dot(w0, apart + 8);
        lower.dot(w1, apart + 12);
    }
    i32x16 total() const { return add(shift_left<8>(upper.total()), lower.total()); }
};

namespace sve {

// Weights are taken signed, w - 128.
struct SignedDots {
    static constexpr int32_t bias = 128;

    CLARION_SVE_INLINE static void prepare(svuint8_t& w0, svuint8_t& w1) {
        w0 = sveor_n_u8_x(svptrue_b8(), w0, 0x80);
        w1 = sveor_n_u8_x(svptrue_b8(), w1, 0x80);
    }
    template <int lane>
    CLARION_SVE_INLINE static svint32_t dot(svint32_t sum, svuint8_t w, svint8_t a) {
        return svdot_lane_s32(sum, svreinterpret_s8_u8(w), a, lane);
    }
};

struct FastDots : SignedDots {
    static constexpr int quad_bytes = 4;

    CLARION_SVE_INLINE static void start(int32_t initial, svint32_t& sum, svint32_t&) {
        sum = svdup_n_s32(initial);
    }
    CLARION_SVE_INLINE static void add(svuint8_t w0, svuint8_t w1, svuint8_t w2, svuint8_t w3,
                                       const uint8_t* quads, svint32_t& sum, svint32_t&) {
        const svint8_t a = replicate(quads);
        sum = dot<3>(dot<2>(dot<1>(dot<0>(sum, w0, a), w1, a), w2, a), w3, a);
    }
    CLARION_SVE_INLINE static svint32_t total(svint32_t sum, svint32_t) { return sum; }
};

// Upper and lower bytes in turns.
struct HighDots : SignedDots {
    static constexpr int quad_bytes = 8;

    CLARION_SVE_INLINE static void start(int32_t initial, svint32_t& upper, svint32_t& lower) {
        upper = svdup_n_s32(0);
        lower = svdup_n_s32(initial);
    }
    CLARION_SVE_INLINE static void add(svuint8_t w0, svuint8_t w1, svuint8_t w2, svuint8_t w3,
                                       const uint8_t* quads, svint32_t& upper, svint32_t& lower) {
        const svint8_t a01 = replicate(quads), a23 = replicate(quads + 16);
        upper = dot<2>(dot<0>(dot<2>(dot<0>(upper, w0, a01), w1, a01), w2, a23), w3, a23);
        lower = dot<3>(dot<1>(dot<3>(dot<1>(lower, w0, a01), w1, a01), w2, a23), w3, a23);
    }
    CLARION_SVE_INLINE static svint32_t total(svint32_t upper, svint32_t lower) {
        return svadd_s32_x(svptrue_b32(), svlsl_n_s32_x(svptrue_b32(), upper, 8), lower);
    }
};

}  // namespace sve

inline int64_t multiply_tile(const TileProduct& p, std::type_identity<fast_sums>) {
    return sve::multiply_all<sve::FastDots>(p);
}
inline int64_t multiply_tile(const TileProduct& p, std::type_identity<high_accumulator>) {
    return sve::multiply_all<sve::HighDots>(p);
}

// Of what tiles leave: nothing.
inline constexpr int tile_fast = 1, tile_high = 1, tile_f32 = 1;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: 16 independent sums, for a
// latency of up to nine (A64FX) at two a cycle.
inline double multiply_burst(int rounds, int32_t* keep) {
    *keep = rounds;
    const double products = 16.0 * static_cast<double>(svcntb()) * rounds;
    __asm__ volatile(
        "1:\n\t"
        "sdot z0.s, z30.b, z31.b\n\t"
        "sdot z1.s, z30.b, z31.b\n\t"
        "sdot z2.s, z30.b, z31.b\n\t"
        "sdot z3.s, z30.b, z31.b\n\t"
        "sdot z4.s, z30.b, z31.b\n\t"
        "sdot z5.s, z30.b, z31.b\n\t"
        "sdot z6.s, z30.b, z31.b\n\t"
        "sdot z7.s, z30.b, z31.b\n\t"
        "sdot z16.s, z30.b, z31.b\n\t"
        "sdot z17.s, z30.b, z31.b\n\t"
        "sdot z18.s, z30.b, z31.b\n\t"
        "sdot z19.s, z30.b, z31.b\n\t"
        "sdot z20.s, z30.b, z31.b\n\t"
        "sdot z21.s, z30.b, z31.b\n\t"
        "sdot z22.s, z30.b, z31.b\n\t"
        "sdot z23.s, z30.b, z31.b\n\t"
        "subs %w[rounds], %w[rounds], #1\n\t"
        "b.ne 1b\n\t"
        : [rounds] "+r"(rounds)
        :
        : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21",
          "v22", "v23", "v30", "v31");
    return products;
}

}  // namespace clarion::simd
