// Plain C++: no intrinsics, any compiler. The definition of what the other headers must compute.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd/half.h"

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    float v[16];
};
struct i32x16 {
    int32_t v[16];
};
struct u8x64 {
    uint8_t v[64];
};

// ---- f32x16

inline f32x16 load(const float* p) {
    f32x16 r;
    std::memcpy(r.v, p, 64);
    return r;
}
inline void store(float* p, f32x16 a) { std::memcpy(p, a.v, 64); }
// The first n lanes (0..16); the others read as zero and are not written.
inline f32x16 load_first(const float* p, int n) {
    f32x16 r{};
    std::memcpy(r.v, p, 4 * static_cast<size_t>(n));
    return r;
}
inline void store_first(float* p, f32x16 a, int n) { std::memcpy(p, a.v, 4 * static_cast<size_t>(n)); }

inline f32x16 set1(float x) {
    f32x16 r;
    for (float& e : r.v) e = x;
    return r;
}
inline f32x16 zero() { return set1(0.0f); }

inline f32x16 add(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
    return a;
}
inline f32x16 sub(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] -= b.v[i];
    return a;
}
inline f32x16 mul(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] *= b.v[i];
    return a;
}
inline f32x16 div(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] /= b.v[i];
    return a;
}
inline f32x16 max(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
inline f32x16 min(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
inline f32x16 abs(f32x16 a) {
    for (float& e : a.v) e = std::fabs(e);
    return a;
}
// a * b + c; one rounding where the processor has it, two here.
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    for (int i = 0; i < 16; ++i) a.v[i] = a.v[i] * b.v[i] + c.v[i];
    return a;
}
using f32_register = f32x16;
inline f32_register load_register(const float* p) { return load(p); }
inline void store_register(float* p, f32_register x) { store(p, x); }
inline constexpr int float_rows = 1, float_tokens = 1;
// Sums and maxima over lanes, always in the order of this tree: 8+8, 4+4, 2+2, 1+1.
inline float reduce_add(f32x16 a) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) a.v[i] += a.v[i + w];
    return a.v[0];
}
inline float reduce_max(f32x16 a) {
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) a.v[i] = a.v[i] > a.v[i + w] ? a.v[i] : a.v[i + w];
    return a.v[0];
}

// ---- i32x16

inline i32x16 load(const int32_t* p) {
    i32x16 r;
    std::memcpy(r.v, p, 64);
    return r;
}
inline void store(int32_t* p, i32x16 a) { std::memcpy(p, a.v, 64); }
inline i32x16 set1(int32_t x) {
    i32x16 r;
    for (int32_t& e : r.v) e = x;
    return r;
}
inline i32x16 add(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i)
        a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
    return a;
}
inline i32x16 sub(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i)
        a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i]));
    return a;
}
inline i32x16 bit_and(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] &= b.v[i];
    return a;
}
inline i32x16 bit_or(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] |= b.v[i];
    return a;
}
template <int n>
i32x16 shift_left(i32x16 a) {
    for (int32_t& e : a.v) e = static_cast<int32_t>(static_cast<uint32_t>(e) << n);
    return a;
}
template <int n>
i32x16 shift_right(i32x16 a) {  // logical
    for (int32_t& e : a.v) e = static_cast<int32_t>(static_cast<uint32_t>(e) >> n);
    return a;
}
template <int n>
i32x16 shift_right_signed(i32x16 a) {
    for (int32_t& e : a.v) e >>= n;
    return a;
}
inline f32x16 to_f32(i32x16 a) {
    f32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(a.v[i]);
    return r;
}
// Rounds to nearest, ties to even. NaN and |a| >= 2^31 give -2^31.
inline i32x16 to_i32(f32x16 a) {
    i32x16 r;
    for (int i = 0; i < 16; ++i)
        r.v[i] = std::fabs(a.v[i]) < 2147483648.0f ? static_cast<int32_t>(std::nearbyint(a.v[i])) : INT32_MIN;
    return r;
}
inline f32x16 as_f32(i32x16 a) { return std::bit_cast<f32x16>(a); }
inline i32x16 as_i32(f32x16 a) { return std::bit_cast<i32x16>(a); }
inline void store_i8(int8_t* p, i32x16 a) {  // the low byte of each lane
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

// ---- 16-bit floats in memory

inline i32x16 load_u8(const uint8_t* p) {
    i32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
}
inline f32x16 load_f16(const uint16_t* p) {
    f32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = f16_to_f32(p[i]);
    return r;
}
inline void store_f16(uint16_t* p, f32x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(a.v[i]);
}
inline f32x16 load_bf16(const uint16_t* p) {
    f32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = bf16_to_f32(p[i]);
    return r;
}

// ---- u8x64: 16 rows of 4 bytes, in row order

inline u8x64 load_bytes(const void* p) {
    u8x64 r;
    std::memcpy(r.v, p, 64);
    return r;
}
inline void store_bytes(void* p, u8x64 a) { std::memcpy(p, a.v, 64); }
inline u8x64 set1_u8(uint8_t x) {
    u8x64 r;
    std::memset(r.v, x, 64);
    return r;
}
inline u8x64 bit_and(u8x64 a, u8x64 b) {
    for (int i = 0; i < 64; ++i) a.v[i] &= b.v[i];
    return a;
}
inline u8x64 bit_or(u8x64 a, u8x64 b) {
    for (int i = 0; i < 64; ++i) a.v[i] |= b.v[i];
    return a;
}
inline u8x64 bit_xor(u8x64 a, u8x64 b) {
    for (int i = 0; i < 64; ++i) a.v[i] ^= b.v[i];
    return a;
}
// Each byte by n bits, zeros in.
template <int n>
u8x64 shift_left_u8(u8x64 a) {
    for (uint8_t& e : a.v) e = static_cast<uint8_t>(e << n);
    return a;
}
template <int n>
u8x64 shift_right_u8(u8x64 a) {
    for (uint8_t& e : a.v) e = static_cast<uint8_t>(e >> n);
    return a;
}

// The four bytes of a row as one number, the first the lowest, and back.
inline i32x16 as_i32(u8x64 a) {
    auto r = std::bit_cast<i32x16>(a);
    if constexpr (std::endian::native == std::endian::big)
        for (int32_t& e : r.v) e = static_cast<int32_t>(__builtin_bswap32(static_cast<uint32_t>(e)));
    return r;
}
inline u8x64 as_u8(i32x16 a) {
    return std::bit_cast<u8x64>(as_i32(std::bit_cast<u8x64>(a)));  // the same exchange of bytes
}

// The low and the high half of each row's four bytes, read as a 16-bit float.
// Sixteen bytes, four times over: a table for look_up.
inline u8x64 repeat_16(const uint8_t* p) {
    u8x64 r;
    for (int i = 0; i < 64; ++i) r.v[i] = p[i % 16];
    return r;
}
// table[i] for each byte i of index, i <= 15.
inline u8x64 look_up(u8x64 table, u8x64 index) {
    for (uint8_t& e : index.v) e = table.v[e];
    return index;
}
inline f32x16 f16_low(u8x64 a) {
    f32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = f16_to_f32(static_cast<uint16_t>(a.v[4 * i] | a.v[4 * i + 1] << 8));
    return r;
}
inline f32x16 f16_high(u8x64 a) {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
        r.v[i] = f16_to_f32(static_cast<uint16_t>(a.v[4 * i + 2] | a.v[4 * i + 3] << 8));
    return r;
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};

// 16 bytes of each row, from `offset`: out[c] holds bytes 4c .. 4c+3 of every row.
inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    for (int c = 0; c < 4; ++c)
        for (int r = 0; r < 16; ++r)
            std::memcpy(out[c].v + 4 * r, rows.base + r * rows.stride + offset + 4 * c, 4);
}

// Groups of columns whose sums stay in registers beside what a panel decoder needs: one token is multiplied
// straight from a decoder with no more of them. 0: vectors are loops here, and rows are decoded instead.
inline constexpr int live_groups = 0;
inline constexpr int live_groups_high = 0;  // with 16-bit activations

// ---- products of weights (u8) with activations

// Sums of w * a over columns, for 16 rows. `wide` says that w may need all eight bits; otherwise w <= 63.
// bias: what the accumulator subtracts from each weight on its own, for the caller to put back.
// dot2 takes two vectors of weights and two quads of activations (kernels/activations.h).

struct fast_sums {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    i32x16 sum;

    static fast_sums start(int32_t initial) { return {set1(initial)}; }
    void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        for (int r = 0; r < 16; ++r)
            for (int j = 0; j < 4; ++j)
                sum.v[r] += w0.v[4 * r + j] * static_cast<int8_t>(quads[j]) +
                            w1.v[4 * r + j] * static_cast<int8_t>(quads[4 + j]);
    }
    i32x16 total() const { return sum; }
};
template <bool wide>
using fast_accumulator = fast_sums;

inline constexpr int32_t high_limit =
    32639;  // 127 * 256 + 127: the largest that splits into two signed bytes

// Writes four activations, |a| <= high_limit, as the 8 bytes that high_accumulator reads.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    for (int j = 0; j < 4; ++j) {
        const auto s = static_cast<int16_t>(a[j]);
        std::memcpy(quad + 2 * j, &s, 2);
    }
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    i32x16 sum;

    static high_accumulator start(int32_t initial) { return {set1(initial)}; }
    void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        int16_t a[8];
        std::memcpy(a, quads, 16);
        for (int r = 0; r < 16; ++r)
            for (int j = 0; j < 4; ++j) sum.v[r] += w0.v[4 * r + j] * a[j] + w1.v[4 * r + j] * a[4 + j];
    }
    i32x16 total() const { return sum; }
};

// Tokens that the product's inner loop takes at once: as many as registers hold, and these are arrays in
// memory.
inline constexpr int tile_fast = 1, tile_high = 1, tile_f32 = 1;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: `rounds` rounds
// of them. Returns how many; *keep depends on them all.
inline double multiply_burst(int rounds, int32_t* keep) {
    u8x64 w;
    for (int i = 0; i < 64; ++i) w.v[i] = static_cast<uint8_t>(i);
    const uint8_t quads[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    auto acc = fast_accumulator<false>::start(0);
    for (int i = 0; i < rounds; ++i) acc.dot2(w, w, quads);
    *keep = acc.sum.v[0];
    return 128.0 * rounds;
}

inline void prefetch(const void*) {}  // into the second-level cache
inline void prefetch_l1(const void*) {}
inline void pause() {}

}  // namespace clarion::simd
