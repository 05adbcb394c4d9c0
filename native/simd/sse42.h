// SSE 4.2 (with SSSE3 and SSE 4.1): a vector of 16 rows is four registers of four.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "simd/half.h"

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    __m128 v[4];
};
struct i32x16 {
    __m128i v[4];
};
struct u8x64 {
    __m128i v[4];
};

// Result { op(register 0), .. op(register 3) }.
template <typename Result, typename Op>
[[gnu::always_inline]] inline Result each(Op op) {
    return {{op(0), op(1), op(2), op(3)}};
}
inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline void store_128(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

// ---- f32x16

inline f32x16 load(const float* p) {
    return each<f32x16>([=](int i) { return _mm_loadu_ps(p + 4 * i); });
}
inline void store(float* p, f32x16 x) {
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(p + 4 * i, x.v[i]);
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
    return each<f32x16>([=](int) { return _mm_set1_ps(x); });
}
inline f32x16 zero() { return set1(0.0f); }
inline f32x16 add(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_add_ps(x.v[i], y.v[i]); });
}
inline f32x16 sub(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_sub_ps(x.v[i], y.v[i]); });
}
inline f32x16 mul(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_mul_ps(x.v[i], y.v[i]); });
}
inline f32x16 div(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_div_ps(x.v[i], y.v[i]); });
}
inline f32x16 max(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_max_ps(x.v[i], y.v[i]); });
}
inline f32x16 min(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return _mm_min_ps(x.v[i], y.v[i]); });
}
inline f32x16 abs(f32x16 x) {
    return each<f32x16>([&](int i) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), x.v[i]); });
}
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {  // two roundings
    return each<f32x16>([&](int i) { return _mm_add_ps(_mm_mul_ps(x.v[i], y.v[i]), z.v[i]); });
}
inline float reduce_add(f32x16 x) {
    const __m128 w4 = _mm_add_ps(_mm_add_ps(x.v[0], x.v[2]), _mm_add_ps(x.v[1], x.v[3]));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_add_ss(w2, _mm_movehdup_ps(w2)));
}
inline float reduce_max(f32x16 x) {
    const __m128 w4 = _mm_max_ps(_mm_max_ps(x.v[0], x.v[2]), _mm_max_ps(x.v[1], x.v[3]));
    const __m128 w2 = _mm_max_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_max_ss(w2, _mm_movehdup_ps(w2)));
}

// ---- i32x16

inline i32x16 load(const int32_t* p) {
    return each<i32x16>([=](int i) { return load_128(p + 4 * i); });
}
inline void store(int32_t* p, i32x16 x) {
    for (int i = 0; i < 4; ++i) store_128(p + 4 * i, x.v[i]);
}
inline i32x16 set1(int32_t x) {
    return each<i32x16>([=](int) { return _mm_set1_epi32(x); });
}
inline i32x16 add(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return _mm_add_epi32(x.v[i], y.v[i]); });
}
inline i32x16 sub(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return _mm_sub_epi32(x.v[i], y.v[i]); });
}
inline i32x16 bit_and(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return _mm_and_si128(x.v[i], y.v[i]); });
}
inline i32x16 bit_or(i32x16 x, i32x16 y) {
    return each<i32x16>([&](int i) { return _mm_or_si128(x.v[i], y.v[i]); });
}
template <int n>
i32x16 shift_left(i32x16 x) {
    return each<i32x16>([&](int i) { return _mm_slli_epi32(x.v[i], n); });
}
template <int n>
i32x16 shift_right(i32x16 x) {
    return each<i32x16>([&](int i) { return _mm_srli_epi32(x.v[i], n); });
}
template <int n>
i32x16 shift_right_signed(i32x16 x) {
    return each<i32x16>([&](int i) { return _mm_srai_epi32(x.v[i], n); });
}
inline f32x16 to_f32(i32x16 x) {
    return each<f32x16>([&](int i) { return _mm_cvtepi32_ps(x.v[i]); });
}
inline i32x16 to_i32(f32x16 x) {
    return each<i32x16>([&](int i) { return _mm_cvtps_epi32(x.v[i]); });
}
inline f32x16 as_f32(i32x16 x) {
    return each<f32x16>([&](int i) { return _mm_castsi128_ps(x.v[i]); });
}
inline i32x16 as_i32(f32x16 x) {
    return each<i32x16>([&](int i) { return _mm_castps_si128(x.v[i]); });
}
inline void store_i8(int8_t* p, i32x16 x) {
    const __m128i low = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    for (int i = 0; i < 4; ++i) {
        const int32_t four = _mm_cvtsi128_si32(_mm_shuffle_epi8(x.v[i], low));
        std::memcpy(p + 4 * i, &four, 4);
    }
}

// ---- 16-bit floats in memory

// Halves in the low 16 bits of each lane. Numbers and subnormals: 2^112 moves the exponent's bias. Infinity and NaN,
// where the half's exponent is all ones, get such an exponent.
inline __m128 widen_f16(__m128i h) {
    const __m128i magnitude = _mm_and_si128(h, _mm_set1_epi32(0x7fff));
    const __m128 finite = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)), _mm_set1_ps(0x1p112f));
    const __m128i special =
        _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
    const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
    return _mm_or_ps(finite, _mm_castsi128_ps(_mm_or_si128(special, sign)));
}
inline __m128i load_u16x4(const uint16_t* p) {
    return _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline i32x16 load_u8(const uint8_t* p) {
    return each<i32x16>([=](int i) {
        int32_t four;
        std::memcpy(&four, p + 4 * i, 4);
        return _mm_cvtepu8_epi32(_mm_cvtsi32_si128(four));
    });
}
inline f32x16 load_f16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return widen_f16(load_u16x4(p + 4 * i)); });
}
inline void store_f16(uint16_t* p, f32x16 x) {
    alignas(16) float y[16];
    store(y, x);
    for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(y[i]);
}
inline f32x16 load_bf16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return _mm_castsi128_ps(_mm_slli_epi32(load_u16x4(p + 4 * i), 16)); });
}

// ---- u8x64

inline u8x64 load_bytes(const void* p) {
    return each<u8x64>([=](int i) { return load_128(static_cast<const char*>(p) + 16 * i); });
}
inline void store_bytes(void* p, u8x64 x) {
    for (int i = 0; i < 4; ++i) store_128(static_cast<char*>(p) + 16 * i, x.v[i]);
}
inline u8x64 set1_u8(uint8_t x) {
    return each<u8x64>([=](int) { return _mm_set1_epi8(static_cast<char>(x)); });
}
inline u8x64 bit_and(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return _mm_and_si128(x.v[i], y.v[i]); });
}
inline u8x64 bit_or(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return _mm_or_si128(x.v[i], y.v[i]); });
}
inline u8x64 bit_xor(u8x64 x, u8x64 y) {
    return each<u8x64>([&](int i) { return _mm_xor_si128(x.v[i], y.v[i]); });
}
// There are no shifts of bytes: shift words and drop the bits that crossed.
template <int n>
u8x64 shift_left_u8(u8x64 x) {
    return bit_and(each<u8x64>([&](int i) { return _mm_slli_epi16(x.v[i], n); }),
                   set1_u8(static_cast<uint8_t>(0xff << n)));
}
template <int n>
u8x64 shift_right_u8(u8x64 x) {
    return bit_and(each<u8x64>([&](int i) { return _mm_srli_epi16(x.v[i], n); }), set1_u8(0xff >> n));
}
inline u8x64 repeat_16(const uint8_t* p) {
    return each<u8x64>([=](int) { return load_128(p); });
}
inline u8x64 look_up(u8x64 table, u8x64 index) {
    return each<u8x64>([&](int i) { return _mm_shuffle_epi8(table.v[i], index.v[i]); });
}
inline i32x16 as_i32(u8x64 x) { return {{x.v[0], x.v[1], x.v[2], x.v[3]}}; }
inline u8x64 as_u8(i32x16 x) { return {{x.v[0], x.v[1], x.v[2], x.v[3]}}; }
inline f32x16 f16_low(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(_mm_and_si128(x.v[i], _mm_set1_epi32(0xffff))); });
}
inline f32x16 f16_high(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(_mm_srli_epi32(x.v[i], 16)); });
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};

// Four 4 x 4 transpositions of 32-bit elements.
[[gnu::always_inline]] inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    for (int i = 0; i < 4; ++i) {
        const uint8_t* p = rows.base + 4 * i * rows.stride + offset;
        const __m128i r0 = load_128(p), r1 = load_128(p + rows.stride);
        const __m128i r2 = load_128(p + 2 * rows.stride), r3 = load_128(p + 3 * rows.stride);
        const __m128i low01 = _mm_unpacklo_epi32(r0, r1), high01 = _mm_unpackhi_epi32(r0, r1);
        const __m128i low23 = _mm_unpacklo_epi32(r2, r3), high23 = _mm_unpackhi_epi32(r2, r3);
        out[0].v[i] = _mm_unpacklo_epi64(low01, low23);
        out[1].v[i] = _mm_unpackhi_epi64(low01, low23);
        out[2].v[i] = _mm_unpacklo_epi64(high01, high23);
        out[3].v[i] = _mm_unpackhi_epi64(high01, high23);
    }
}

// Groups of columns whose sums stay in registers beside what a panel decoder needs: four each, of 16.
inline constexpr int live_groups = 1;
inline constexpr int live_groups_high = 1;  // with 16-bit activations

// ---- products

inline __m128i broadcast_quad(const uint8_t* quad) {
    int32_t q;
    std::memcpy(&q, quad, 4);
    return _mm_set1_epi32(q);
}

// pmaddubsw adds two products u8 * s8 into 16 bits and saturates. Weights are taken signed, |w - 128| <= 128, with their
// sign moved to the activation: at most 128 * 127 * 2 = 32512.
template <bool wide>
struct fast_accumulator {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    __m128i sum[4];

    static fast_accumulator start(int32_t initial) {
        const __m128i first = _mm_set1_epi32(initial);
        return {{first, first, first, first}};
    }
    [[gnu::always_inline]] static __m128i dot(__m128i sum, __m128i w, __m128i quad) {
        const __m128i s = _mm_xor_si128(w, _mm_set1_epi8(-128));
        const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(s), _mm_sign_epi8(quad, s));
        return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m128i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4);
        for (int i = 0; i < 4; ++i) sum[i] = dot(dot(sum[i], w0.v[i], q0), w1.v[i], q1);
    }
    i32x16 total() const { return {{sum[0], sum[1], sum[2], sum[3]}}; }
};

// Up to 63 * 127 * 2 products, twice: 32004 fits.
template <>
struct fast_accumulator<false> {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m128i sum[4];

    static fast_accumulator start(int32_t initial) {
        const __m128i first = _mm_set1_epi32(initial);
        return {{first, first, first, first}};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m128i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4), ones = _mm_set1_epi16(1);
        for (int i = 0; i < 4; ++i) {
            const __m128i pairs =
                _mm_add_epi16(_mm_maddubs_epi16(w0.v[i], q0), _mm_maddubs_epi16(w1.v[i], q1));
            sum[i] = _mm_add_epi32(sum[i], _mm_madd_epi16(pairs, ones));
        }
    }
    i32x16 total() const { return {{sum[0], sum[1], sum[2], sum[3]}}; }
};

inline constexpr int32_t high_limit = 32639;

// Even columns, then odd ones, as pmaddwd wants to meet the even and the odd bytes of four weights.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    const int16_t s[4] = {static_cast<int16_t>(a[0]), static_cast<int16_t>(a[2]), static_cast<int16_t>(a[1]),
                          static_cast<int16_t>(a[3])};
    std::memcpy(quad, s, 8);
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    __m128i sum[4];

    static high_accumulator start(int32_t initial) {
        const __m128i first = _mm_set1_epi32(initial);
        return {{first, first, first, first}};
    }
    [[gnu::always_inline]] static __m128i dot(__m128i sum, __m128i w, __m128i even, __m128i odd) {
        const __m128i w_even = _mm_and_si128(w, _mm_set1_epi16(0xff)), w_odd = _mm_srli_epi16(w, 8);
        return _mm_add_epi32(_mm_add_epi32(sum, _mm_madd_epi16(w_even, even)), _mm_madd_epi16(w_odd, odd));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m128i even0 = broadcast_quad(quads), odd0 = broadcast_quad(quads + 4);
        const __m128i even1 = broadcast_quad(quads + 8), odd1 = broadcast_quad(quads + 12);
        for (int i = 0; i < 4; ++i) sum[i] = dot(dot(sum[i], w0.v[i], even0, odd0), w1.v[i], even1, odd1);
    }
    i32x16 total() const { return {{sum[0], sum[1], sum[2], sum[3]}}; }
};

// Four registers a token for its sums, of 16.
inline constexpr int tile_fast = 2, tile_high = 2, tile_f32 = 2;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: as
// fast_accumulator does them, with enough independent sums to hide their latency.
inline double multiply_burst(int rounds, int32_t* keep) {
    __m128i w = _mm_set1_epi8(3), q = _mm_set1_epi8(5);
    const __m128i ones = _mm_set1_epi16(1);
    __m128i sums[6];
    for (auto& s : sums) s = _mm_setzero_si128();
    for (int i = 0; i < rounds; ++i)
        for (auto& s : sums) {
            __asm__("" : "+x"(w), "+x"(q));  // a new product each time, as far as the compiler knows
            const __m128i pairs = _mm_add_epi16(_mm_maddubs_epi16(w, q), _mm_maddubs_epi16(q, w));
            s = _mm_add_epi32(s, _mm_madd_epi16(pairs, ones));
        }
    __m128i sum = sums[0];
    for (int i = 1; i < 6; ++i) sum = _mm_xor_si128(sum, sums[i]);
    *keep = _mm_cvtsi128_si32(sum);
    return 6.0 * 32.0 * rounds;
}

[[gnu::always_inline]] inline void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}
inline void pause() { _mm_pause(); }

}  // namespace clarion::simd
