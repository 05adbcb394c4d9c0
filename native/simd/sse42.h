// SSE 4.2 (with SSSE3 and SSE 4.1): a vector of 16 rows is four registers of four. Weights are decoded, and multiplied with
// one token, a register of rows at a time (kernels/per_register.h).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simd/half.h"

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    __m128 v[4];
};
// n registers of such vectors.
template <int n>
struct Words {
    __m128i v[n];
};
template <int n>
struct Bytes {
    __m128i v[n];
};
using i32x16 = Words<4>;
using u8x64 = Bytes<4>;

// Result { op(register 0), .. }.
template <typename Result, typename Op>
[[gnu::always_inline]] inline Result each(Op op) {
    if constexpr (sizeof(Result) == 16)
        return {{op(0)}};
    else
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
// A register of floats, and the tile of kernels/float_product.h that 16 of them hold, with a product in between.
using f32_register = __m128;
inline f32_register load_register(const float* p) { return _mm_loadu_ps(p); }
inline void store_register(float* p, f32_register x) { _mm_storeu_ps(p, x); }
inline f32_register fma(f32_register x, f32_register y, f32_register z) {
    return _mm_add_ps(_mm_mul_ps(x, y), z);
}
inline constexpr int float_rows = 3, float_tokens = 3;
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
template <int n, int m>
inline Words<n> add(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return _mm_add_epi32(x.v[i], y.v[i]); });
}
template <int n, int m>
inline Words<n> sub(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return _mm_sub_epi32(x.v[i], y.v[i]); });
}
template <int n, int m>
inline Words<n> bit_and(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return _mm_and_si128(x.v[i], y.v[i]); });
}
template <int n, int m>
inline Words<n> bit_or(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return _mm_or_si128(x.v[i], y.v[i]); });
}
template <int by, int n>
inline Words<n> shift_left(Words<n> x) {
    return each<Words<n>>([&](int i) { return _mm_slli_epi32(x.v[i], by); });
}
template <int by, int n>
inline Words<n> shift_right(Words<n> x) {
    return each<Words<n>>([&](int i) { return _mm_srli_epi32(x.v[i], by); });
}
template <int by, int n>
inline Words<n> shift_right_signed(Words<n> x) {
    return each<Words<n>>([&](int i) { return _mm_srai_epi32(x.v[i], by); });
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
template <int n, int m>
inline Bytes<n> bit_and(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return _mm_and_si128(x.v[i], y.v[i]); });
}
template <int n, int m>
inline Bytes<n> bit_or(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return _mm_or_si128(x.v[i], y.v[i]); });
}
template <int n, int m>
inline Bytes<n> bit_xor(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return _mm_xor_si128(x.v[i], y.v[i]); });
}
// There are no shifts of bytes: shift words and drop the bits that crossed.
template <int by, int n>
inline Bytes<n> shift_left_u8(Bytes<n> x) {
    return bit_and(each<Bytes<n>>([&](int i) { return _mm_slli_epi16(x.v[i], by); }),
                   set1_u8(static_cast<uint8_t>(0xff << by)));
}
template <int by, int n>
inline Bytes<n> shift_right_u8(Bytes<n> x) {
    return bit_and(each<Bytes<n>>([&](int i) { return _mm_srli_epi16(x.v[i], by); }), set1_u8(0xff >> by));
}
inline u8x64 repeat_16(const uint8_t* p) {
    return each<u8x64>([=](int) { return load_128(p); });
}
template <int n>
inline Bytes<n> look_up(u8x64 table, Bytes<n> index) {
    return each<Bytes<n>>([&](int i) { return _mm_shuffle_epi8(table.v[i], index.v[i]); });
}
template <int n>
inline Words<n> as_i32(Bytes<n> x) {
    return each<Words<n>>([&](int i) { return x.v[i]; });
}
template <int n>
inline Bytes<n> as_u8(Words<n> x) {
    return each<Bytes<n>>([&](int i) { return x.v[i]; });
}
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

// Entries of two rows are loaded into one register; then the even 32-bit elements of two are the first halves of the
// entries, in row order.
[[gnu::always_inline]] inline void look_up_rows(const uint64_t* table, const uint32_t* pairs, int half,
                                                u8x64& w0, u8x64& w1) {
    using Half [[gnu::may_alias]] = uint16_t;  // so that an index takes one load
    const auto* index = reinterpret_cast<const Half*>(pairs) + half;
    const auto* entries = reinterpret_cast<const double*>(table);
    for (int i = 0; i < 4; ++i, index += 8) {
        const __m128 a = _mm_castpd_ps(_mm_loadh_pd(_mm_load_sd(entries + index[0]), entries + index[2]));
        const __m128 b = _mm_castpd_ps(_mm_loadh_pd(_mm_load_sd(entries + index[4]), entries + index[6]));
        w0.v[i] = _mm_castps_si128(_mm_shuffle_ps(a, b, 0x88));
        w1.v[i] = _mm_castps_si128(_mm_shuffle_ps(a, b, 0xdd));
    }
}
[[gnu::always_inline]] inline void look_up_pairs(const uint32_t* table, const uint32_t* pairs, u8x64& w0,
                                                 u8x64& w1) {
    // Read as halves, or the compiler makes vectors of masks and shifts, and takes them apart.
    using Half [[gnu::may_alias]] = uint16_t;
    const auto* halves = reinterpret_cast<const Half*>(pairs);
    const auto four = [=](int half) {
        const auto at = [=](int row) { return static_cast<int>(table[halves[half + 2 * row]]); };
        const __m128i low = _mm_insert_epi32(_mm_cvtsi32_si128(at(0)), at(1), 1);
        const __m128i high = _mm_insert_epi32(_mm_cvtsi32_si128(at(2)), at(3), 1);
        return _mm_unpacklo_epi64(low, high);
    };
    w0 = each<u8x64>([&](int i) { return four(8 * i); });
    w1 = each<u8x64>([&](int i) { return four(8 * i + 1); });
}
template <int n>
[[gnu::always_inline]] inline void change_flagged(Bytes<n>& w0, Bytes<n>& w1, Words<n> flags, uint8_t flip,
                                                  uint8_t more) {
    const __m128i first = _mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    const auto change = [=](__m128i w, __m128i bytes, int bits) {
        const __m128i bit = _mm_set1_epi32(bits), set = _mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit);
        const __m128i flipped = _mm_xor_si128(w, _mm_and_si128(set, _mm_set1_epi8(static_cast<char>(flip))));
        return _mm_add_epi8(flipped, _mm_and_si128(set, _mm_set1_epi8(static_cast<char>(more))));
    };
    for (int i = 0; i < n; ++i) {
        const __m128i bytes = _mm_shuffle_epi8(flags.v[i], first);
        w0.v[i] = change(w0.v[i], bytes, 0x08040201);
        w1.v[i] = change(w1.v[i], bytes, static_cast<int>(0x80402010));
    }
}

// Groups of columns whose sums stay in registers beside what a panel decoder needs: one each, of 16.
inline constexpr int live_groups = 8;
inline constexpr int live_groups_high = 8;  // with 16-bit activations

// ---- products

inline __m128i broadcast_quad(const uint8_t* quad) {
    int32_t q;
    std::memcpy(&q, quad, 4);
    return _mm_set1_epi32(q);
}

// pmaddubsw adds two products u8 * s8 into 16 bits and saturates. Weights are taken signed, |w - 128| <= 128, with their
// sign moved to the activation: at most 128 * 127 * 2 = 32512.
struct WideBytes {
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;

    [[gnu::always_inline]] static __m128i dot(__m128i sum, __m128i w, __m128i quad) {
        const __m128i s = _mm_xor_si128(w, _mm_set1_epi8(-128));
        const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(s), _mm_sign_epi8(quad, s));
        return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
    }
    [[gnu::always_inline]] static __m128i dot2(__m128i sum, __m128i w0, __m128i w1, const __m128i q[2]) {
        return dot(dot(sum, w0, q[0]), w1, q[1]);
    }
};
// Up to 63 * 127 * 2 products, twice: 32004 fits.
struct NarrowBytes {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;

    [[gnu::always_inline]] static __m128i dot2(__m128i sum, __m128i w0, __m128i w1, const __m128i q[2]) {
        const __m128i pairs = _mm_add_epi16(_mm_maddubs_epi16(w0, q[0]), _mm_maddubs_epi16(w1, q[1]));
        return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
    }
};

inline constexpr int32_t high_limit = 32639;

// Even columns, then odd ones, as pmaddwd wants to meet the even and the odd bytes of four weights.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    const int16_t s[4] = {static_cast<int16_t>(a[0]), static_cast<int16_t>(a[2]), static_cast<int16_t>(a[1]),
                          static_cast<int16_t>(a[3])};
    std::memcpy(quad, s, 8);
}
struct Halves {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;

    [[gnu::always_inline]] static __m128i dot(__m128i sum, __m128i w, const __m128i q[2]) {
        const __m128i w_even = _mm_and_si128(w, _mm_set1_epi16(0xff)), w_odd = _mm_srli_epi16(w, 8);
        return _mm_add_epi32(_mm_add_epi32(sum, _mm_madd_epi16(w_even, q[0])), _mm_madd_epi16(w_odd, q[1]));
    }
    [[gnu::always_inline]] static __m128i dot2(__m128i sum, __m128i w0, __m128i w1, const __m128i q[4]) {
        return dot(dot(sum, w0, q), w1, q + 2);
    }
};

// Of n registers of rows.
template <typename Products, int n>
struct Sums {
    using OneRegister = Sums<Products, 1>;
    using Vector = Bytes<n>;
    static constexpr int32_t bias = Products::bias;
    static constexpr int quad_bytes = Products::quad_bytes;
    __m128i sum[n];

    static Sums start(int32_t initial) {
        Sums r;
        for (__m128i& s : r.sum) s = _mm_set1_epi32(initial);
        return r;
    }
    [[gnu::always_inline]] void dot2(Vector w0, Vector w1, const uint8_t* quads) {
        __m128i q[quad_bytes / 2];
        for (int i = 0; i < quad_bytes / 2; ++i) q[i] = broadcast_quad(quads + 4 * i);
        for (int i = 0; i < n; ++i) sum[i] = Products::dot2(sum[i], w0.v[i], w1.v[i], q);
    }
    Words<n> total() const {
        return each<Words<n>>([&](int i) { return sum[i]; });
    }
};
template <bool wide>
using fast_accumulator = Sums<std::conditional_t<wide, WideBytes, NarrowBytes>, 4>;
using high_accumulator = Sums<Halves, 4>;

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
[[gnu::always_inline]] inline void prefetch_l1(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
inline void pause() { _mm_pause(); }

}  // namespace clarion::simd
