// Vectors of the compiler (GCC, Clang), no intrinsics: a vector of 16 rows is one of 64 bytes, which the compiler cuts
// into the registers that there are: VSX of POWER, RVV of RISC-V at any length from 128 bits, LSX and LASX of
// LoongArch, SIMD of WebAssembly, the vectors of IBM Z.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "simd/half.h"

namespace clarion::simd {

inline constexpr int lanes = 16;

using F32 [[gnu::vector_size(64)]] = float;
using I32 [[gnu::vector_size(64)]] = int32_t;
using U32 [[gnu::vector_size(64)]] = uint32_t;
using I16 [[gnu::vector_size(64)]] = int16_t;
using U16 [[gnu::vector_size(64)]] = uint16_t;
using U8 [[gnu::vector_size(64)]] = uint8_t;
using QuarterU8 [[gnu::vector_size(16)]] = uint8_t;
using HalfU16 [[gnu::vector_size(32)]] = uint16_t;

// In structs, which every calling convention knows how to pass.
struct f32x16 {
    F32 v;
};
struct i32x16 {
    I32 v;
};
struct u8x64 {
    U8 v;
};

template <typename To, typename From>
[[gnu::always_inline]] inline To vector_from(const From* p) {
    To r;
    std::memcpy(&r, p, sizeof r);
    return r;
}

// ---- f32x16

inline f32x16 load(const float* p) { return {vector_from<F32>(p)}; }
inline void store(float* p, f32x16 x) { std::memcpy(p, &x, 64); }
inline f32x16 load_first(const float* p, int n) {
    f32x16 r{};
    std::memcpy(&r, p, 4 * static_cast<size_t>(n));
    return r;
}
inline void store_first(float* p, f32x16 x, int n) { std::memcpy(p, &x, 4 * static_cast<size_t>(n)); }
inline f32x16 zero() { return {F32{}}; }
inline f32x16 set1(float x) { return {F32{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}}; }
inline f32x16 add(f32x16 x, f32x16 y) { return {x.v + y.v}; }
inline f32x16 sub(f32x16 x, f32x16 y) { return {x.v - y.v}; }
inline f32x16 mul(f32x16 x, f32x16 y) { return {x.v * y.v}; }
inline f32x16 div(f32x16 x, f32x16 y) { return {x.v / y.v}; }
inline f32x16 max(f32x16 x, f32x16 y) { return {x.v > y.v ? x.v : y.v}; }
inline f32x16 min(f32x16 x, f32x16 y) { return {x.v < y.v ? x.v : y.v}; }
inline f32x16 abs(f32x16 x) { return {(F32)((I32)x.v & INT32_MAX)}; }
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) { return {x.v * y.v + z.v}; }
inline float reduce_add(f32x16 x) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) x.v[i] += x.v[i + w];
    return x.v[0];
}
inline float reduce_max(f32x16 x) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) x.v[i] = x.v[i] > x.v[i + w] ? x.v[i] : x.v[i + w];
    return x.v[0];
}

// ---- i32x16

inline i32x16 load(const int32_t* p) { return {vector_from<I32>(p)}; }
inline void store(int32_t* p, i32x16 x) { std::memcpy(p, &x, 64); }
inline i32x16 set1(int32_t x) { return {I32{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}}; }
inline i32x16 add(i32x16 x, i32x16 y) { return {(I32)((U32)x.v + (U32)y.v)}; }
inline i32x16 sub(i32x16 x, i32x16 y) { return {(I32)((U32)x.v - (U32)y.v)}; }
inline i32x16 bit_and(i32x16 x, i32x16 y) { return {x.v & y.v}; }
inline i32x16 bit_or(i32x16 x, i32x16 y) { return {x.v | y.v}; }
template <int n>
i32x16 shift_left(i32x16 x) {
    return {(I32)((U32)x.v << n)};
}
template <int n>
i32x16 shift_right(i32x16 x) {
    return {(I32)((U32)x.v >> n)};
}
template <int n>
i32x16 shift_right_signed(i32x16 x) {
    return {x.v >> n};
}
inline f32x16 to_f32(i32x16 x) { return {__builtin_convertvector(x.v, F32)}; }
// Adding 2^23 to what is smaller rounds it to an integer, ties to even; larger numbers are integers.
inline i32x16 to_i32(f32x16 x) {
    const F32 size = abs(x).v, magic = set1(0x1p23f).v;
    F32 rounded = (size + magic) - magic;
    rounded = size < magic ? rounded : size;
    const I32 fits = size < set1(0x1p31f).v;
    const I32 magnitude = __builtin_convertvector((F32)((I32)rounded & fits), I32);
    const I32 sign = (I32)x.v >> 31;
    const I32 value = (magnitude ^ sign) - sign;
    return {fits ? value : set1(INT32_MIN).v};
}
inline f32x16 as_f32(i32x16 x) { return {(F32)x.v}; }
inline i32x16 as_i32(f32x16 x) { return {(I32)x.v}; }
inline void store_i8(int8_t* p, i32x16 x) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(x.v[i]);
}

// ---- 16-bit floats in memory

// Halves in the low 16 bits of each lane. Numbers and subnormals: 2^112 moves the exponent's bias. Infinity and NaN,
// where the half's exponent is all ones, get such an exponent.
inline f32x16 widen_f16(U32 h) {
    const U32 magnitude = h & 0x7fffu;
    const F32 finite = (F32)(magnitude << 13) * set1(0x1p112f).v;
    const U32 special = (U32{} - ((magnitude + 0x0400u) >> 15)) & 0x7f800000u;
    return {(F32)((U32)finite | special | (h & 0x8000u) << 16)};
}
inline i32x16 load_u8(const uint8_t* p) { return {__builtin_convertvector(vector_from<QuarterU8>(p), I32)}; }
inline f32x16 load_f16(const uint16_t* p) {
    return widen_f16(__builtin_convertvector(vector_from<HalfU16>(p), U32));
}
inline void store_f16(uint16_t* p, f32x16 x) {
    for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(x.v[i]);
}
inline f32x16 load_bf16(const uint16_t* p) {
    return {(F32)(__builtin_convertvector(vector_from<HalfU16>(p), U32) << 16)};
}

// ---- u8x64

inline u8x64 load_bytes(const void* p) { return {vector_from<U8>(p)}; }
inline void store_bytes(void* p, u8x64 x) { std::memcpy(p, &x, 64); }
inline u8x64 set1_u8(uint8_t x) { return {U8{} + x}; }
inline u8x64 bit_and(u8x64 x, u8x64 y) { return {x.v & y.v}; }
inline u8x64 bit_or(u8x64 x, u8x64 y) { return {x.v | y.v}; }
inline u8x64 bit_xor(u8x64 x, u8x64 y) { return {x.v ^ y.v}; }
template <int n>
u8x64 shift_left_u8(u8x64 x) {
    return {x.v << n};
}
template <int n>
u8x64 shift_right_u8(u8x64 x) {
    return {x.v >> n};
}
inline u8x64 repeat_16(const uint8_t* p) {
    u8x64 r;
    for (int i = 0; i < 4; ++i) std::memcpy(reinterpret_cast<uint8_t*>(&r) + 16 * i, p, 16);
    return r;
}
inline u8x64 look_up(u8x64 table, u8x64 index) {
    for (int i = 0; i < 64; ++i) index.v[i] = table.v[index.v[i]];
    return index;
}
// A row's first byte is the lowest of its number, whatever the processor's order.
[[gnu::always_inline]] inline U32 lowest_first(U32 x) {
    if constexpr (std::endian::native == std::endian::little) return x;
    return x << 24 | (x << 8 & 0xff0000u) | (x >> 8 & 0xff00u) | x >> 24;
}
inline i32x16 as_i32(u8x64 x) { return {(I32)lowest_first((U32)x.v)}; }
inline u8x64 as_u8(i32x16 x) { return {(U8)lowest_first((U32)x.v)}; }
inline f32x16 f16_low(u8x64 x) { return widen_f16(lowest_first((U32)x.v) & 0xffffu); }
inline f32x16 f16_high(u8x64 x) { return widen_f16(lowest_first((U32)x.v) >> 16); }

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};
[[gnu::always_inline]] inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    I32 columns[4];
    for (int r = 0; r < 16; ++r) {
        int32_t row[4];
        std::memcpy(row, rows.base + r * rows.stride + offset, 16);
        for (int c = 0; c < 4; ++c) columns[c][r] = row[c];
    }
    for (int c = 0; c < 4; ++c) out[c].v = (U8)columns[c];
}

// Groups of columns whose sums stay in registers beside what a panel decoder needs: how many there are is not known here.
inline constexpr int live_groups = 1;
inline constexpr int live_groups_high = 1;  // with 16-bit activations

// ---- products

// Elements j and j+1 of four bytes, as 16 bits, to every row.
[[gnu::always_inline]] inline I16 pair(int16_t first, int16_t second) {
    const auto low = static_cast<uint16_t>(first), high = static_cast<uint16_t>(second);
    return (I16)set1(static_cast<int32_t>(static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16)).v;
}

// Weights are taken signed, |w - 128| <= 128. Two products of them, at most 128 * 127 * 2 = 32512, fit into 16 bits: each
// half of a row's 32 bits sums two columns.
struct fast_sums {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    I32 sum;

    static fast_sums start(int32_t initial) { return {set1(initial).v}; }
    [[gnu::always_inline]] void dot(u8x64 w, const uint8_t* quads) {
        int8_t a[4];
        std::memcpy(a, quads, 4);
        const I16 s = (I16)lowest_first((U32)(w.v ^ 0x80));
        const I16 even = (I16)((U16)s << 8) >> 8, odd = s >> 8;
        const I32 products = (I32)(even * pair(a[0], a[2]) + odd * pair(a[1], a[3]));
        sum += ((I32)((U32)products << 16) >> 16) + (products >> 16);
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        dot(w0, quads);
        dot(w1, quads + 4);
    }
    i32x16 total() const { return {sum}; }
};
template <bool wide>
using fast_accumulator = fast_sums;

inline constexpr int32_t high_limit = 32639;

// Four activations of 16 bits, in order.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    for (int j = 0; j < 4; ++j) {
        const auto s = static_cast<int16_t>(a[j]);
        std::memcpy(quad + 2 * j, &s, 2);
    }
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    I32 sum;

    static high_accumulator start(int32_t initial) { return {set1(initial).v}; }
    [[gnu::always_inline]] void dot(u8x64 w, const uint8_t* quad) {
        int16_t a[4];
        std::memcpy(a, quad, 8);
        const U32 u = lowest_first((U32)w.v);
        sum += (I32)(u & 0xffu) * a[0] + (I32)(u >> 8 & 0xffu) * a[1] + (I32)(u >> 16 & 0xffu) * a[2] +
               (I32)(u >> 24) * a[3];
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        dot(w0, quads);
        dot(w1, quads + 8);
    }
    i32x16 total() const { return {sum}; }
};

// Tokens share the unpacking of weights; how many registers there are is not known here.
inline constexpr int tile_fast = 2, tile_high = 2, tile_f32 = 2;

// Does products of 8-bit integers, added to 32-bit sums, as fast_sums does them.
inline double multiply_burst(int rounds, int32_t* keep) {
    u8x64 w = set1_u8(3);
    const uint8_t quads[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    auto first = fast_sums::start(0), second = fast_sums::start(0);
    for (int i = 0; i < rounds; ++i) {
        first.dot2(w, w, quads);
        second.dot2(w, w, quads);
        w.v ^= 1;
    }
    *keep = first.sum[0] ^ second.sum[0];
    return 256.0 * rounds;
}

[[gnu::always_inline]] inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void pause() {}

}  // namespace clarion::simd
