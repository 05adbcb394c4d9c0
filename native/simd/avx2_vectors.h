// AVX2 + FMA + F16C, without products of bytes: a vector of 16 rows is two registers, rows 0-7 and 8-15.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    __m256 a, b;
};
struct i32x16 {
    __m256i a, b;
};
struct u8x64 {
    __m256i a, b;
};

// ---- f32x16

inline f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, f32x16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline f32x16 load_first(const float* p, int n) {
    alignas(32) float x[16] = {};
    std::memcpy(x, p, 4 * static_cast<size_t>(n));
    return load(x);
}
inline void store_first(float* p, f32x16 x, int n) {
    alignas(32) float y[16];
    store(y, x);
    std::memcpy(p, y, 4 * static_cast<size_t>(n));
}
inline f32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline f32x16 add(f32x16 x, f32x16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline f32x16 sub(f32x16 x, f32x16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline f32x16 mul(f32x16 x, f32x16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline f32x16 div(f32x16 x, f32x16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline f32x16 max(f32x16 x, f32x16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline f32x16 min(f32x16 x, f32x16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline f32x16 abs(f32x16 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
// A register of floats, and the tile of kernels/float_product.h that 16 of them hold.
using f32_register = __m256;
inline f32_register load_register(const float* p) { return _mm256_loadu_ps(p); }
inline void store_register(float* p, f32_register x) { _mm256_storeu_ps(p, x); }
inline f32_register fma(f32_register x, f32_register y, f32_register z) { return _mm256_fmadd_ps(x, y, z); }
inline constexpr int float_rows = 4, float_tokens = 3;
inline float reduce_add(f32x16 x) {
    const __m256 w8 = _mm256_add_ps(x.a, x.b);
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_add_ss(w2, _mm_movehdup_ps(w2)));
}
inline float reduce_max(f32x16 x) {
    const __m256 w8 = _mm256_max_ps(x.a, x.b);
    const __m128 w4 = _mm_max_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_max_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_max_ss(w2, _mm_movehdup_ps(w2)));
}

// Within 128 bits the four elements of four vectors become one vector, then the 128 bits of two such vectors.
template <typename Both>
[[gnu::always_inline]] inline f32x16 across(const f32x16* v, const Both& both) {
    const auto four = [&](const f32x16* from) __attribute__((always_inline)) {
        const __m256 a = both(from[0].a, from[0].b), b = both(from[1].a, from[1].b);
        const __m256 c = both(from[2].a, from[2].b), d = both(from[3].a, from[3].b);
        const __m256 ab = both(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        const __m256 cd = both(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        return both(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    };
    const auto eight = [&](const f32x16* from) __attribute__((always_inline)) {
        const __m256 x = four(from), y = four(from + 4);
        return both(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
    };
    return {eight(v), eight(v + 8)};
}
inline f32x16 max_across_all(const f32x16* v) {
    return across(v, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
}
inline f32x16 add_across_all(const f32x16* v) {
    return across(v, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); });
}

// ---- i32x16

inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store_256(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

inline i32x16 load(const int32_t* p) { return {load_256(p), load_256(p + 8)}; }
inline void store(int32_t* p, i32x16 x) {
    store_256(p, x.a);
    store_256(p + 8, x.b);
}
inline i32x16 set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline i32x16 add(i32x16 x, i32x16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline i32x16 sub(i32x16 x, i32x16 y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline i32x16 bit_and(i32x16 x, i32x16 y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline i32x16 bit_or(i32x16 x, i32x16 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
template <int n>
i32x16 shift_left(i32x16 x) {
    return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
template <int n>
i32x16 shift_right(i32x16 x) {
    return {_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)};
}
template <int n>
i32x16 shift_right_signed(i32x16 x) {
    return {_mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n)};
}
inline f32x16 to_f32(i32x16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline i32x16 to_i32(f32x16 x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline f32x16 as_f32(i32x16 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
inline i32x16 as_i32(f32x16 x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline void store_i8(int8_t* p, i32x16 x) {
    const __m256i byte = _mm256_set1_epi32(0xff);
    const __m256i words = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(_mm256_and_si256(x.a, byte), _mm256_and_si256(x.b, byte)), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

// ---- 16-bit floats in memory

inline float f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
inline uint16_t f32_to_f16(float f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
inline float bf16_to_f32(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
inline __m128i load_u16x8(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline i32x16 load_u8(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
inline f32x16 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(load_u16x8(p)), _mm256_cvtph_ps(load_u16x8(p + 8))};
}
inline void store_f16(uint16_t* p, f32x16 x) {
    auto* out = reinterpret_cast<__m128i*>(p);
    _mm_storeu_si128(out, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(out + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline f32x16 load_bf16(const uint16_t* p) {
    const auto widen = [](__m128i h) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
    };
    return {widen(load_u16x8(p)), widen(load_u16x8(p + 8))};
}

// ---- u8x64

inline u8x64 load_bytes(const void* p) { return {load_256(p), load_256(static_cast<const char*>(p) + 32)}; }
inline void store_bytes(void* p, u8x64 x) {
    store_256(p, x.a);
    store_256(static_cast<char*>(p) + 32, x.b);
}
inline u8x64 set1_u8(uint8_t x) {
    const __m256i v = _mm256_set1_epi8(static_cast<char>(x));
    return {v, v};
}
inline u8x64 bit_and(u8x64 x, u8x64 y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline u8x64 bit_or(u8x64 x, u8x64 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline u8x64 bit_xor(u8x64 x, u8x64 y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
// There are no shifts of bytes: shift words and drop the bits that crossed.
template <int n>
u8x64 shift_left_u8(u8x64 x) {
    return bit_and(u8x64{_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)},
                   set1_u8(static_cast<uint8_t>(0xff << n)));
}
template <int n>
u8x64 shift_right_u8(u8x64 x) {
    return bit_and(u8x64{_mm256_srli_epi16(x.a, n), _mm256_srli_epi16(x.b, n)}, set1_u8(0xff >> n));
}
inline u8x64 repeat_16(const uint8_t* p) {
    const __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {v, v};
}
inline u8x64 look_up(u8x64 table, u8x64 index) {
    return {_mm256_shuffle_epi8(table.a, index.a), _mm256_shuffle_epi8(table.b, index.b)};
}
inline i32x16 as_i32(u8x64 x) { return {x.a, x.b}; }
inline u8x64 as_u8(i32x16 x) { return {x.a, x.b}; }

// The low 16 bits of eight 32-bit elements, as eight floats.
inline __m256 low_halves_to_f32(__m256i x) {
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
inline f32x16 f16_low(u8x64 x) { return {low_halves_to_f32(x.a), low_halves_to_f32(x.b)}; }
inline f32x16 f16_high(u8x64 x) {
    return {low_halves_to_f32(_mm256_srli_epi32(x.a, 16)), low_halves_to_f32(_mm256_srli_epi32(x.b, 16))};
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};

// As in avx512_vectors.h, for eight rows: register i takes rows i and 4+i, one in each 128-bit lane.
[[gnu::always_inline]] inline void transpose_16_of_8(const uint8_t* p, int64_t s, __m256i out[4]) {
    const auto two = [s](const uint8_t* q) {
        const auto row = [q](int64_t at) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + at));
        };
        return _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(4 * s), 1);
    };
    const __m256i v0 = two(p), v1 = two(p + s), v2 = two(p + 2 * s), v3 = two(p + 3 * s);
    const __m256i low01 = _mm256_unpacklo_epi32(v0, v1), high01 = _mm256_unpackhi_epi32(v0, v1);
    const __m256i low23 = _mm256_unpacklo_epi32(v2, v3), high23 = _mm256_unpackhi_epi32(v2, v3);
    out[0] = _mm256_unpacklo_epi64(low01, low23);
    out[1] = _mm256_unpackhi_epi64(low01, low23);
    out[2] = _mm256_unpacklo_epi64(high01, high23);
    out[3] = _mm256_unpackhi_epi64(high01, high23);
}
[[gnu::always_inline]] inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    int64_t s = rows.stride;
    __asm__("" : "+r"(s));  // or the compiler keeps 16 addresses in memory instead of scaling one register
    __m256i a[4], b[4];
    transpose_16_of_8(rows.base + offset, s, a);
    transpose_16_of_8(rows.base + 8 * s + offset, s, b);
    out[0] = {a[0], b[0]};
    out[1] = {a[1], b[1]};
    out[2] = {a[2], b[2]};
    out[3] = {a[3], b[3]};
}

// As in avx512_vectors.h, for eight rows.
[[gnu::always_inline]] inline void look_up_8_rows(const uint64_t* table, const uint32_t* pairs, int half,
                                                  __m256i& w0, __m256i& w1) {
    using Half [[gnu::may_alias]] = uint16_t;  // so that an index takes one load
    const auto* index = reinterpret_cast<const Half*>(pairs) + half;
    const auto two = [=](int r) {
        const auto* entries = reinterpret_cast<const double*>(table);
        return _mm_castpd_si128(
            _mm_loadh_pd(_mm_load_sd(entries + index[2 * r]), entries + index[2 * r + 2]));
    };
    const auto four = [&](int r) {
        return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(two(r)), two(r + 4), 1));
    };
    const __m256 a = four(0), b = four(2);
    w0 = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    w1 = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
}
[[gnu::always_inline]] inline void look_up_rows(const uint64_t* table, const uint32_t* pairs, int half,
                                                u8x64& w0, u8x64& w1) {
    look_up_8_rows(table, pairs, half, w0.a, w1.a);
    look_up_8_rows(table, pairs + 8, half, w0.b, w1.b);
}
// Loads are what bounds it: both indices of a row take one. A load that fills a register, and a blend, run on any port; to insert
// four bytes takes one of two.
[[gnu::always_inline]] inline void look_up_8_pairs(const uint32_t* table, const uint32_t* pairs, __m256i& w0,
                                                   __m256i& w1) {
    const auto all = [=](uint32_t i) { return _mm256_set1_epi32(static_cast<int>(table[i])); };
    const auto two = [&](int r, __m256i& v0, __m256i& v1) {
        uint32_t x = pairs[r], y = pairs[r + 1];
        __asm__(""
                : "+r"(x),
                  "+r"(y));  // or the compiler makes vectors of masks and shifts, and takes them apart
        v0 = _mm256_blend_epi32(all(x & 0xffff), all(y & 0xffff), 0xaa);
        v1 = _mm256_blend_epi32(all(x >> 16), all(y >> 16), 0xaa);
    };
    const auto four = [&](int r, __m256i& v0, __m256i& v1) {
        __m256i a0, a1, b0, b1;
        two(r, a0, a1);
        two(r + 2, b0, b1);
        v0 = _mm256_blend_epi32(a0, b0, 0xcc);
        v1 = _mm256_blend_epi32(a1, b1, 0xcc);
    };
    __m256i a0, a1, b0, b1;
    four(0, a0, a1);
    four(4, b0, b1);
    w0 = _mm256_blend_epi32(a0, b0, 0xf0);
    w1 = _mm256_blend_epi32(a1, b1, 0xf0);
}
[[gnu::always_inline]] inline void look_up_pairs(const uint32_t* table, const uint32_t* pairs, u8x64& w0,
                                                 u8x64& w1) {
    look_up_8_pairs(table, pairs, w0.a, w1.a);
    look_up_8_pairs(table, pairs + 8, w0.b, w1.b);
}
// The lowest byte of each row's flags, four times. Then columns 0-3 and 4-7 find their flag in these bits.
[[gnu::always_inline]] inline __m256i flags_of_eight(__m256i flags) {
    return _mm256_shuffle_epi8(
        flags, _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)));
}
inline constexpr int first_flags = 0x08040201;
inline constexpr auto last_flags = static_cast<int>(0x80402010);

// w, or what `other` makes of it where a flag is set.
template <typename Other>
[[gnu::always_inline]] inline void where_flagged(u8x64& w0, u8x64& w1, i32x16 flags, const Other& other) {
    const auto change = [&](__m256i& w, __m256i eight, int bits) {
        const __m256i bit = _mm256_set1_epi32(bits);
        w = _mm256_blendv_epi8(w, other(w), _mm256_cmpeq_epi8(_mm256_and_si256(eight, bit), bit));
    };
    const __m256i a = flags_of_eight(flags.a), b = flags_of_eight(flags.b);
    change(w0.a, a, first_flags);
    change(w0.b, b, first_flags);
    change(w1.a, a, last_flags);
    change(w1.b, b, last_flags);
}
[[gnu::always_inline]] inline void change_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t flip,
                                                  uint8_t more) {
    const __m256i x = set1_u8(flip).a, c = set1_u8(more).a;
    where_flagged(w0, w1, flags, [=](__m256i w) { return _mm256_add_epi8(_mm256_xor_si256(w, x), c); });
}
[[gnu::always_inline]] inline void negate_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t twice) {
    const __m256i from = set1_u8(twice).a;
    where_flagged(w0, w1, flags, [=](__m256i w) { return _mm256_sub_epi8(from, w); });
}
[[gnu::always_inline]] inline void shift_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t more) {
    const __m256i by = set1_u8(more).a;
    const __m256i a = _mm256_and_si256(flags_of_eight(flags.a), by);
    const __m256i b = _mm256_and_si256(flags_of_eight(flags.b), by);
    w0 = {_mm256_add_epi8(w0.a, a), _mm256_add_epi8(w0.b, b)};
    w1 = {_mm256_add_epi8(w1.a, a), _mm256_add_epi8(w1.b, b)};
}

// Digits in base 3 of bytes that are fractions of 256. They are kept less 128: times 3, within a byte, is the same then,
// and comparisons are signed ones.
struct TernaryDigits {
    __m256i a, b;

    TernaryDigits() = default;
    explicit TernaryDigits(u8x64 bytes)
        : a(_mm256_xor_si256(bytes.a, _mm256_set1_epi8(-128))),
          b(_mm256_xor_si256(bytes.b, _mm256_set1_epi8(-128))) {}
    [[gnu::always_inline]] u8x64 next() { return {next(a), next(b)}; }

  private:
    // The digit is 1 from 86 on and 2 from 171 on.
    [[gnu::always_inline]] static __m256i next(__m256i& rest) {
        const __m256i from1 = _mm256_cmpgt_epi8(rest, _mm256_set1_epi8(85 - 128));
        const __m256i from2 = _mm256_cmpgt_epi8(rest, _mm256_set1_epi8(170 - 128));
        rest = _mm256_add_epi8(rest, _mm256_add_epi8(rest, rest));
        return _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(from1, from2));
    }
};
inline TernaryDigits ternary_digits(u8x64 bytes) { return TernaryDigits(bytes); }

// Groups of columns whose sums stay in registers beside what a panel decoder needs: one token is multiplied straight
// from a decoder with no more of them. Eight do not fit 16 registers; but what is spilled costs less than the tile.
inline constexpr int live_groups = 8;
inline constexpr int live_groups_high = 4;  // with 16-bit activations, which take more code for each

inline __m256i broadcast_quad(const uint8_t* quad) {
    int32_t q;
    std::memcpy(&q, quad, 4);
    return _mm256_set1_epi32(q);
}

// Into the second-level cache, and into the first. Volatile, or compilers gather the prefetches of a whole block of weights at
// its beginning.
inline void prefetch(const void* p) {
    __asm__ volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(p)));
}
inline void prefetch_l1(const void* p) {
    __asm__ volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)));
}
inline void pause() { _mm_pause(); }

}  // namespace clarion::simd
