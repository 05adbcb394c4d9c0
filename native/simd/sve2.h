// AArch64 with SVE2 of any length and FEAT_I8MM (Neoverse N2 and V2, Cortex-A510 and later): tiles by its products of
// unsigned with signed bytes, the rest by those of Advanced SIMD.
#pragma once

#include "simd/neon_i8mm.h"
#include "simd/sve_products.h"

namespace clarion::simd {

namespace sve {

struct FastDots {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;

    CLARION_SVE_INLINE static void prepare(svuint8_t&, svuint8_t&) {}
    CLARION_SVE_INLINE static void start(int32_t initial, svint32_t& sum, svint32_t&) {
        sum = svdup_n_s32(initial);
    }
    CLARION_SVE_INLINE static void add(svuint8_t w0, svuint8_t w1, svuint8_t w2, svuint8_t w3,
                                       const uint8_t* quads, svint32_t& sum, svint32_t&) {
        const svint8_t a = replicate(quads);
        sum = svusdot_lane_s32(svusdot_lane_s32(sum, w0, a, 0), w1, a, 1);
        sum = svusdot_lane_s32(svusdot_lane_s32(sum, w2, a, 2), w3, a, 3);
    }
    CLARION_SVE_INLINE static svint32_t total(svint32_t sum, svint32_t) { return sum; }
};

// As in neon_i8mm.h, a 2 x 2 product in each 128 bits: two rows by the upper and the lower bytes of eight columns. A row's
// two sums lie beside each other, those of the first half of a register's rows in one vector, of the second in another.
struct HighDots {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;

    CLARION_SVE_INLINE static void prepare(svuint8_t& w0, svuint8_t& w1) {
        const svuint32_t v0 = svreinterpret_u32_u8(w0), v1 = svreinterpret_u32_u8(w1);
        w0 = svreinterpret_u8_u32(svzip1_u32(v0, v1));
        w1 = svreinterpret_u8_u32(svzip2_u32(v0, v1));
    }
    CLARION_SVE_INLINE static void start(int32_t initial, svint32_t& near, svint32_t& far) {
        near = far = svzip1_s32(svdup_n_s32(0), svdup_n_s32(initial));
    }
    CLARION_SVE_INLINE static void add(svuint8_t near01, svuint8_t far01, svuint8_t near23, svuint8_t far23,
                                       const uint8_t* quads, svint32_t& near, svint32_t& far) {
        const svint8_t a01 = upper_first(quads), a23 = upper_first(quads + 16);
        near = svusmmla_s32(svusmmla_s32(near, near01, a01), near23, a23);
        far = svusmmla_s32(svusmmla_s32(far, far01, a01), far23, a23);
    }
    CLARION_SVE_INLINE static svint32_t total(svint32_t near, svint32_t far) {
        const svint32_t upper = svuzp1_s32(near, far), lower = svuzp2_s32(near, far);
        return svadd_s32_x(svptrue_b32(), svlsl_n_s32_x(svptrue_b32(), upper, 8), lower);
    }

  private:
    // Upper, lower, upper, lower: the middle two change places.
    CLARION_SVE_INLINE static svint8_t upper_first(const uint8_t* quads) {
        const svint32_t a = svreinterpret_s32_s8(replicate(quads));
        return svreinterpret_s8_s32(svtbl_s32(a, svdupq_n_u32(0, 2, 1, 3)));
    }
};

}  // namespace sve

inline int64_t multiply_tile(const TileProduct& p, std::type_identity<fast_sums>) {
    return sve::multiply_all<sve::FastDots>(p);
}
inline int64_t multiply_tile(const TileProduct& p, std::type_identity<high_accumulator>) {
    return sve::multiply_all<sve::HighDots>(p);
}

}  // namespace clarion::simd
