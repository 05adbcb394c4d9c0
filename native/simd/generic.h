// Plain C++: no intrinsics, any compiler. The definition of what the other headers must compute.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

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

// ---- f32x16 -------------------------------------------------------------------------------------------------

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

// ---- i32x16 -------------------------------------------------------------------------------------------------

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
    for (int i = 0; i < 16; ++i) a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
    return a;
}
inline i32x16 sub(i32x16 a, i32x16 b) {
    for (int i = 0; i < 16; ++i) a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i]));
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
inline i32x16 load_i8(const int8_t* p) {  // 16 signed bytes, widened
    i32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
}
inline i32x16 load_u8(const uint8_t* p) {
    i32x16 r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
}
inline void store_i8(int8_t* p, i32x16 a) {  // the low byte of each lane
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

// ---- 16-bit floats in memory ----------------------------------------------------------------------------------

inline float f16_to_f32(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 31u, mantissa = h & 1023u;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
    return (h & 0x8000u) ? -subnormal : subnormal;
}
inline uint16_t f32_to_f16(float f) {  // to nearest even
    const uint32_t bits = std::bit_cast<uint32_t>(f), sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u)  // subnormal: adding 0.5 aligns the last bit kept with the last bit of the sum
        return static_cast<uint16_t>(
            sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u));
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}
inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

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

// ---- u8x64: 16 rows of 4 bytes, in row order --------------------------------------------------------------------

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

// Column c of 16 rows: out[c] holds, for each row r, the four bytes at rows[r] + 4c. N columns, 8 or 16.
template <int N>
void transpose_4(const uint8_t* const rows[16], u8x64 out[N]) {
    for (int c = 0; c < N; ++c)
        for (int r = 0; r < 16; ++r) std::memcpy(out[c].v + 4 * r, rows[r] + 4 * c, 4);
}

// ---- products of weights (u8) with activations --------------------------------------------------------------------

// A quad of 8-bit activations: four signed bytes, [-127, 127].
// acc[r] += sum over j of w[r][j] * a[j].
inline i32x16 dot_fast(i32x16 acc, u8x64 w, const uint8_t* quad) {
    for (int r = 0; r < 16; ++r)
        for (int j = 0; j < 4; ++j) acc.v[r] += static_cast<int32_t>(w.v[4 * r + j]) * static_cast<int8_t>(quad[j]);
    return acc;
}

// A quad of 16-bit activations takes 8 bytes, whose order is this header's own affair: encode_quad writes it,
// high_accumulator::dot reads it. |a| <= high_limit.
inline constexpr int32_t high_limit = 32639;
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    for (int j = 0; j < 4; ++j) {
        const auto s = static_cast<int16_t>(a[j]);
        std::memcpy(quad + 2 * j, &s, 2);
    }
}
struct high_accumulator {
    i32x16 sum;
    static high_accumulator start(i32x16 initial) { return {initial}; }
    void dot(u8x64 w, const uint8_t* quad) {
        int16_t a[4];
        std::memcpy(a, quad, 8);
        for (int r = 0; r < 16; ++r)
            for (int j = 0; j < 4; ++j) sum.v[r] += static_cast<int32_t>(w.v[4 * r + j]) * a[j];
    }
    i32x16 total() const { return sum; }
};
struct fast_accumulator {
    i32x16 sum;
    static fast_accumulator start(i32x16 initial) { return {initial}; }
    void dot(u8x64 w, const uint8_t* quad) { sum = dot_fast(sum, w, quad); }
    i32x16 total() const { return sum; }
};

inline void prefetch(const void*) {}
inline void pause() {}

}  // namespace clarion::simd
