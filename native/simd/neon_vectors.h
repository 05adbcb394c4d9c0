// What all processors with Advanced SIMD (AArch64) share: a vector of 16 rows is four registers of four.
// Little-endian.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    float32x4_t v[4];
};
struct i32x16 {
    int32x4_t v[4];
};
struct u8x64 {
    uint8x16_t v[4];
};

// Result { op(register 0), .. op(register 3) }.
template <typename Result, typename Op>
[[gnu::always_inline]] inline Result each(Op op) {
    return {{op(0), op(1), op(2), op(3)}};
}

// ---- f32x16

inline f32x16 load(const float* p) {
    return each<f32x16>([=](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, f32x16 x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline f32x16 load_first(const float* p, int n) {
    alignas(16) float x[16] = {};
    std::memcpy(x, p, 4 * static_cast<size_t>(n));
    return load(x);
}
inline void store_first(float* p, f32x16 x, int n) {
    alignas(16) float y[16];
    store(y, x);
    std::memcpy(p, y, 4 * static_cast<size_t>(n));
}
inline f32x16 set1(float x) {
    return each<f32x16>([=](int) { return vdupq_n_f32(x); });
}
inline f32x16 zero() { return set1(0.0f); }
inline f32x16 add(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
}
inline f32x16 sub(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
}
inline f32x16 mul(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
}
inline f32x16 div(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
}
// Not vmaxq: where a lane is NaN, the second operand is the result.
inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline f32x16 max(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return larger(x.v[i], y.v[i]); });
}
inline f32x16 min(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
}
inline f32x16 abs(f32x16 x) {
    return each<f32x16>([&](int i) { return vabsq_f32(x.v[i]); });
}
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
    return each<f32x16>([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
}
// A register of floats, and the tile of kernels/float_product.h that 32 of them hold.
using f32_register = float32x4_t;
inline f32_register load_register(const float* p) { return vld1q_f32(p); }
inline void store_register(float* p, f32_register x) { vst1q_f32(p, x); }
inline f32_register fma(f32_register x, f32_register y, f32_register z) { return vfmaq_f32(z, x, y); }
inline constexpr int float_rows = 4, float_tokens = 5;
inline float reduce_add(f32x16 x) {
    const float32x4_t w4 = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    const float32x2_t w2 = vadd_f32(vget_low_f32(w4), vget_high_f32(w4));
    return vget_lane_f32(w2, 0) + vget_lane_f32(w2, 1);
}
inline float reduce_max(f32x16 x) {
    const float32x4_t w4 = larger(larger(x.v[0], x.v[2]), larger(x.v[1], x.v[3]));
    const float32x4_t w2 = larger(w4, vextq_f32(w4, w4, 2));
    return vgetq_lane_f32(larger(w2, vextq_f32(w2, w2, 1)), 0);
}

// ---- i32x16

inline i32x16 load(const int32_t* p) {
    return each<i32x16>([=](int i) { return vld1q_s32(p + 4 * i); });
}
inline void store(int32_t* p, i32x16 x) {
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, x.v[i]);
}
inline i32x16 set1(int32_t x) {
    return each<i32x16>([=](int) { return vdupq_n_s32(x); });
}
inline i32x16 add(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return vaddq_s32(x.v[i], y.v[i]); });
}
inline i32x16 sub(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return vsubq_s32(x.v[i], y.v[i]); });
}
inline i32x16 bit_and(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return vandq_s32(x.v[i], y.v[i]); });
}
inline i32x16 bit_or(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return vorrq_s32(x.v[i], y.v[i]); });
}
// Shifts by a register: the instructions with a constant know no shift by zero to the right.
template <int n>
i32x16 shift_left(i32x16 x) {
    return each<i32x16>([&](int i) { return vshlq_s32(x.v[i], vdupq_n_s32(n)); });
}
template <int n>
i32x16 shift_right(i32x16 x) {
    return each<i32x16>([&](int i) {
        return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x.v[i]), vdupq_n_s32(-n)));
    });
}
template <int n>
i32x16 shift_right_signed(i32x16 x) {
    return each<i32x16>([&](int i) { return vshlq_s32(x.v[i], vdupq_n_s32(-n)); });
}
inline f32x16 to_f32(i32x16 x) {
    return each<f32x16>([&](int i) { return vcvtq_f32_s32(x.v[i]); });
}
// The conversion saturates, and NaN gives zero: both must give the least integer.
inline i32x16 to_i32(f32x16 x) {
    return each<i32x16>([&](int i) {
        const uint32x4_t fits = vcltq_f32(vabsq_f32(x.v[i]), vdupq_n_f32(2147483648.0f));
        return vbslq_s32(fits, vcvtnq_s32_f32(x.v[i]), vdupq_n_s32(INT32_MIN));
    });
}
inline f32x16 as_f32(i32x16 x) {
    return each<f32x16>([&](int i) { return vreinterpretq_f32_s32(x.v[i]); });
}
inline i32x16 as_i32(f32x16 x) {
    return each<i32x16>([&](int i) { return vreinterpretq_s32_f32(x.v[i]); });
}
inline void store_i8(int8_t* p, i32x16 x) {
    const int16x8_t low = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

// ---- 16-bit floats in memory

inline float32x4_t widen_f16(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
inline float f16_to_f32(uint16_t h) { return vgetq_lane_f32(widen_f16(vdup_n_u16(h)), 0); }
inline uint16_t f32_to_f16(float f) {
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(f))), 0);
}
inline float bf16_to_f32(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
inline i32x16 load_u8(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t halves[2] = {vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes))};
    return each<i32x16>([&](int i) {
        const uint16x8_t h = halves[i / 2];
        return vreinterpretq_s32_u32(vmovl_u16(i % 2 == 0 ? vget_low_u16(h) : vget_high_u16(h)));
    });
}
inline f32x16 load_f16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return widen_f16(vld1_u16(p + 4 * i)); });
}
inline void store_f16(uint16_t* p, f32x16 x) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
inline f32x16 load_bf16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}

// ---- u8x64

inline u8x64 load_bytes(const void* p) {
    const auto* from = static_cast<const uint8_t*>(p);
    return each<u8x64>([=](int i) { return vld1q_u8(from + 16 * i); });
}
inline void store_bytes(void* p, u8x64 x) {
    for (int i = 0; i < 4; ++i) vst1q_u8(static_cast<uint8_t*>(p) + 16 * i, x.v[i]);
}
inline u8x64 set1_u8(uint8_t x) {
    return each<u8x64>([=](int) { return vdupq_n_u8(x); });
}
inline u8x64 bit_and(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return vandq_u8(x.v[i], y.v[i]); });
}
inline u8x64 bit_or(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return vorrq_u8(x.v[i], y.v[i]); });
}
inline u8x64 bit_xor(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return veorq_u8(x.v[i], y.v[i]); });
}
template <int n>
u8x64 shift_left_u8(u8x64 x) {
    return each<u8x64>([&](int i) { return vshlq_u8(x.v[i], vdupq_n_s8(n)); });
}
template <int n>
u8x64 shift_right_u8(u8x64 x) {
    return each<u8x64>([&](int i) { return vshlq_u8(x.v[i], vdupq_n_s8(-n)); });
}
inline u8x64 repeat_16(const uint8_t* p) {
    return each<u8x64>([=](int) { return vld1q_u8(p); });
}
inline u8x64 look_up(u8x64 table, u8x64 index) {
    return each<u8x64>([&](int i) { return vqtbl1q_u8(table.v[i], index.v[i]); });
}
inline i32x16 as_i32(u8x64 x) {
    return each<i32x16>([&](int i) { return vreinterpretq_s32_u8(x.v[i]); });
}
inline u8x64 as_u8(i32x16 x) {
    return each<u8x64>([&](int i) { return vreinterpretq_u8_s32(x.v[i]); });
}
inline f32x16 f16_low(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(vmovn_u32(vreinterpretq_u32_u8(x.v[i]))); });
}
inline f32x16 f16_high(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(vshrn_n_u32(vreinterpretq_u32_u8(x.v[i]), 16)); });
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};

// Four 4 x 4 transpositions of 32-bit elements.
[[gnu::always_inline]] inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    for (int i = 0; i < 4; ++i) {
        const auto row = [&](int r) {
            return vreinterpretq_u32_u8(vld1q_u8(rows.base + (4 * i + r) * rows.stride + offset));
        };
        const uint32x4_t r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
        const uint64x2_t even01 = vreinterpretq_u64_u32(vtrn1q_u32(r0, r1));
        const uint64x2_t odd01 = vreinterpretq_u64_u32(vtrn2q_u32(r0, r1));
        const uint64x2_t even23 = vreinterpretq_u64_u32(vtrn1q_u32(r2, r3));
        const uint64x2_t odd23 = vreinterpretq_u64_u32(vtrn2q_u32(r2, r3));
        out[0].v[i] = vreinterpretq_u8_u64(vtrn1q_u64(even01, even23));
        out[1].v[i] = vreinterpretq_u8_u64(vtrn1q_u64(odd01, odd23));
        out[2].v[i] = vreinterpretq_u8_u64(vtrn2q_u64(even01, even23));
        out[3].v[i] = vreinterpretq_u8_u64(vtrn2q_u64(odd01, odd23));
    }
}

// Entries of two rows are loaded into one register; then the even 32-bit elements of two are the first halves of the
// entries, in row order.
[[gnu::always_inline]] inline void look_up_rows(const uint64_t* table, const uint32_t* pairs, int half,
                                                u8x64& w0, u8x64& w1) {
    using Half [[gnu::may_alias]] = uint16_t;
    const auto* index = reinterpret_cast<const Half*>(pairs) + half;
    const auto two = [=](int r) {
        const uint64x1_t first = vld1_u64(table + index[2 * r]), second = vld1_u64(table + index[2 * r + 2]);
        return vreinterpretq_u32_u64(vcombine_u64(first, second));
    };
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t a = two(4 * i), b = two(4 * i + 2);
        w0.v[i] = vreinterpretq_u8_u32(vuzp1q_u32(a, b));
        w1.v[i] = vreinterpretq_u8_u32(vuzp2q_u32(a, b));
    }
}
[[gnu::always_inline]] inline void look_up_pairs(const uint32_t* table, const uint32_t* pairs, u8x64& w0,
                                                 u8x64& w1) {
    using Half [[gnu::may_alias]] = uint16_t;
    const auto* halves = reinterpret_cast<const Half*>(pairs);
    const auto four = [=](int half) {
        const auto at = [=](int row) { return table[halves[half + 2 * row]]; };
        return vreinterpretq_u8_u32(uint32x4_t{at(0), at(1), at(2), at(3)});
    };
    w0 = each<u8x64>([&](int i) { return four(8 * i); });
    w1 = each<u8x64>([&](int i) { return four(8 * i + 1); });
}
[[gnu::always_inline]] inline void change_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t flip,
                                                  uint8_t more) {
    const uint8x16_t first = vreinterpretq_u8_u32(uint32x4_t{0, 0x04040404, 0x08080808, 0x0c0c0c0c});
    const auto change = [=](uint8x16_t w, uint8x16_t bytes, uint32_t bits) {
        const uint8x16_t set = vtstq_u8(bytes, vreinterpretq_u8_u32(vdupq_n_u32(bits)));
        return vaddq_u8(veorq_u8(w, vandq_u8(set, vdupq_n_u8(flip))), vandq_u8(set, vdupq_n_u8(more)));
    };
    for (int i = 0; i < 4; ++i) {
        const uint8x16_t bytes = vqtbl1q_u8(vreinterpretq_u8_s32(flags.v[i]), first);
        w0.v[i] = change(w0.v[i], bytes, 0x08040201);
        w1.v[i] = change(w1.v[i], bytes, 0x80402010);
    }
}

inline constexpr int32_t high_limit = 32639;

[[gnu::always_inline]] inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
[[gnu::always_inline]] inline void prefetch_l1(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void pause() { __asm__ volatile("isb" ::: "memory"); }  // yield does nothing on most cores

}  // namespace clarion::simd
