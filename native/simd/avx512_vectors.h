// AVX-512 F/BW/VL/DQ, without products of bytes: a vector of 16 rows is one register.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace clarion::simd {

inline constexpr int lanes = 16;

struct f32x16 {
    __m512 v;
};
struct i32x16 {
    __m512i v;
};
struct u8x64 {
    __m512i v;
};

// ---- f32x16

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
inline f32x16 load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store_first(float* p, f32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline f32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline f32x16 zero() { return {_mm512_setzero_ps()}; }
inline f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f32x16 sub(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f32x16 mul(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f32x16 div(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline f32x16 abs(f32x16 a) { return {_mm512_abs_ps(a.v)}; }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// A register of floats, and the tile of kernels/float_product.h that 32 of them hold.
using f32_register = f32x16;
inline f32_register load_register(const float* p) { return load(p); }
inline void store_register(float* p, f32_register x) { store(p, x); }
inline constexpr int float_rows = 4, float_tokens = 6;
inline float reduce_add(f32x16 a) {
    const __m256 w8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_add_ss(w2, _mm_movehdup_ps(w2)));
}
inline float reduce_max(f32x16 a) {
    const __m256 w8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 w4 = _mm_max_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_max_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_cvtss_f32(_mm_max_ss(w2, _mm_movehdup_ps(w2)));
}

// Within 128 bits the four elements of four vectors become one vector, then the 128 bits of four such vectors.
template <typename Both>
[[gnu::always_inline]] inline f32x16 across(const f32x16* v, const Both& both) {
    __m512 four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512 a = v[4 * i].v, b = v[4 * i + 1].v, c = v[4 * i + 2].v, d = v[4 * i + 3].v;
        const __m512 ab = both(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        const __m512 cd = both(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        four[i] = both(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    }
    const auto halves = [&](__m512 x, __m512 y) {
        return both(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
    };
    return {halves(halves(four[0], four[1]), halves(four[2], four[3]))};
}
inline f32x16 max_across_all(const f32x16* v) {
    return across(v, [](__m512 x, __m512 y) { return _mm512_max_ps(x, y); });
}
inline f32x16 add_across_all(const f32x16* v) {
    return across(v, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); });
}

// ---- i32x16

inline i32x16 load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store(int32_t* p, i32x16 a) { _mm512_storeu_si512(p, a.v); }
inline i32x16 set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline i32x16 add(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline i32x16 sub(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline i32x16 bit_and(i32x16 a, i32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline i32x16 bit_or(i32x16 a, i32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int n>
i32x16 shift_left(i32x16 a) {
    return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
i32x16 shift_right(i32x16 a) {
    return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
i32x16 shift_right_signed(i32x16 a) {
    return {_mm512_srai_epi32(a.v, n)};
}
inline f32x16 to_f32(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline i32x16 to_i32(f32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
inline f32x16 as_f32(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline i32x16 as_i32(f32x16 a) { return {_mm512_castps_si512(a.v)}; }
inline void store_i8(int8_t* p, i32x16 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
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
inline __m256i load_u16x16(const uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline i32x16 load_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline f32x16 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_u16x16(p))}; }
inline void store_f16(uint16_t* p, f32x16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline f32x16 load_bf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_u16x16(p)), 16))};
}

// ---- u8x64

// Once, into a register: as an operand of every instruction that uses them, bytes of two lines would be read as often.
inline u8x64 load_bytes(const void* p) {
    __m512i v = _mm512_loadu_si512(p);
    __asm__("" : "+v"(v));
    return {v};
}
inline void store_bytes(void* p, u8x64 a) { _mm512_storeu_si512(p, a.v); }
inline u8x64 set1_u8(uint8_t x) { return {_mm512_set1_epi8(static_cast<char>(x))}; }
inline u8x64 bit_and(u8x64 a, u8x64 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline u8x64 bit_or(u8x64 a, u8x64 b) { return {_mm512_or_si512(a.v, b.v)}; }
inline u8x64 bit_xor(u8x64 a, u8x64 b) { return {_mm512_xor_si512(a.v, b.v)}; }
// There are no shifts of bytes: shift words and drop the bits that crossed.
template <int n>
u8x64 shift_left_u8(u8x64 a) {
    return bit_and(u8x64{_mm512_slli_epi16(a.v, n)}, set1_u8(static_cast<uint8_t>(0xff << n)));
}
template <int n>
u8x64 shift_right_u8(u8x64 a) {
    return bit_and(u8x64{_mm512_srli_epi16(a.v, n)}, set1_u8(0xff >> n));
}
inline i32x16 as_i32(u8x64 a) { return {a.v}; }
inline u8x64 as_u8(i32x16 a) { return {a.v}; }
inline u8x64 repeat_16(const uint8_t* p) {
    return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline u8x64 look_up(u8x64 table, u8x64 index) { return {_mm512_shuffle_epi8(table.v, index.v)}; }
inline f32x16 f16_low(u8x64 a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }
inline f32x16 f16_high(u8x64 a) {
    return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a.v, 16)))};
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};

// Register i takes rows i, 4+i, 8+i, 12+i, one in each 128-bit lane; a 4 x 4 transposition of 32-bit elements within
// the lanes then leaves the rows in order. Joining pairs, then halves, leaves most of the work to 256-bit operations,
// which processors with 256-bit units do twice as fast and the others no slower.
[[gnu::always_inline]] inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    int64_t s = rows.stride;
    __asm__("" : "+r"(s));  // or the compiler keeps 16 addresses in memory instead of scaling one register
    const auto four = [s](const uint8_t* p) {
        const auto row = [p](int64_t at) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + at));
        };
        const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(4 * s), 1);
        const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(row(8 * s)), row(12 * s), 1);
        return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    };
    const uint8_t* p = rows.base + offset;
    const __m512i v0 = four(p), v1 = four(p + s), v2 = four(p + 2 * s), v3 = four(p + 3 * s);
    const __m512i low01 = _mm512_unpacklo_epi32(v0, v1), high01 = _mm512_unpackhi_epi32(v0, v1);
    const __m512i low23 = _mm512_unpacklo_epi32(v2, v3), high23 = _mm512_unpackhi_epi32(v2, v3);
    out[0].v = _mm512_unpacklo_epi64(low01, low23);
    out[1].v = _mm512_unpackhi_epi64(low01, low23);
    out[2].v = _mm512_unpacklo_epi64(high01, high23);
    out[3].v = _mm512_unpackhi_epi64(high01, high23);
}

// Entries of two rows are loaded into one register, rows of four pairs into a vector; then the even 32-bit elements of
// two vectors are the first halves of the entries, in row order. Twice as fast as a gather where that is microcode, and
// where gathers were slowed down against data sampling.
[[gnu::always_inline]] inline void look_up_rows(const uint64_t* table, const uint32_t* pairs, int half,
                                                u8x64& w0, u8x64& w1) {
    using Half [[gnu::may_alias]] = uint16_t;  // so that an index takes one load
    const auto* index = reinterpret_cast<const Half*>(pairs) + half;
    const auto two = [=](int r) {
        const auto* entries = reinterpret_cast<const double*>(table);
        return _mm_castpd_si128(
            _mm_loadh_pd(_mm_load_sd(entries + index[2 * r]), entries + index[2 * r + 2]));
    };
    const auto eight = [&](int r) {
        const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(two(r)), two(r + 4), 1);
        const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(two(r + 8)), two(r + 12), 1);
        return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
    };
    const __m512 a = eight(0), b = eight(2);
    w0.v = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    w1.v = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd));
}
// 4 bytes a row are looked up as they are packed, in 16 bits, by permutations of words. n registers of them, which two
// instructions take at a time; the upper bits of an index choose among what these find.
template <int n>
[[gnu::always_inline]] inline __m512i find_words(const __m512i* table, __m512i index) {
    if constexpr (n == 2) {
        return _mm512_permutex2var_epi16(table[0], index, table[1]);
    } else {
        const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(16 * n));
        return _mm512_mask_blend_epi16(upper, find_words<n / 2>(table, index),
                                       find_words<n / 2>(table + n / 2, index));
    }
}
template <int n>
void look_up_words(const uint8_t* words, uint32_t* pairs, int count) {
    __m512i table[n];
#pragma GCC unroll 16
    for (int k = 0; k < n; ++k) table[k] = _mm512_loadu_si512(words + 64 * k);
    for (int i = 0; i < count; ++i)
        _mm512_storeu_si512(pairs + 16 * i, find_words<n>(table, _mm512_loadu_si512(pairs + 16 * i)));
}
template <typename Codebook>
void look_up_packed(const Codebook& codebook, uint32_t* pairs, int count) {
    const auto look_up = codebook.n == 256 ? look_up_words<8> : look_up_words<16>;
    look_up(codebook.packed, pairs, count);
}
template <typename Codebook>
[[gnu::always_inline]] inline void unpack_two(const Codebook& codebook, const uint32_t* packed, u8x64& w0,
                                              u8x64& w1) {
    const __m512i x = load_bytes(packed).v, levels = repeat_16(codebook.levels).v;
    const __m512i low = _mm512_set1_epi16(0x000f), high = _mm512_set1_epi16(0x0f00);
    // Two bytes of each row twice, of which the first keeps its low four bits and the second its high ones.
    const auto unpack = [&](int first) {
        const __m512i twice = _mm512_broadcast_i32x4(
            _mm_setr_epi32(first, first + 0x04040404, first + 0x08080808, first + 0x0c0c0c0c));
        const __m512i bytes = _mm512_shuffle_epi8(x, twice);
        const __m512i four = _mm512_or_si512(_mm512_and_si512(bytes, low),
                                             _mm512_and_si512(_mm512_srli_epi16(bytes, 4), high));
        return u8x64{_mm512_shuffle_epi8(levels, four)};
    };
    w0 = unpack(0x01010000);
    w1 = unpack(0x03030202);
}
// w0 = change(w0, which of its bytes are flagged), and w1.
template <typename Change>
[[gnu::always_inline]] inline void where_flagged(u8x64& w0, u8x64& w1, i32x16 flags, const Change& change) {
    const __m512i first = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    const __m512i bytes = _mm512_shuffle_epi8(flags.v, first);
    w0.v = change(w0.v, _mm512_test_epi8_mask(bytes, _mm512_set1_epi32(0x08040201)));
    w1.v = change(w1.v, _mm512_test_epi8_mask(bytes, _mm512_set1_epi32(static_cast<int>(0x80402010))));
}
[[gnu::always_inline]] inline void change_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t flip,
                                                  uint8_t more) {
    const __m512i x = set1_u8(flip).v, c = set1_u8(more).v;
    where_flagged(w0, w1, flags, [&](__m512i w, __mmask64 set) {
        return _mm512_mask_add_epi8(w, set, _mm512_xor_si512(w, x), c);
    });
}
[[gnu::always_inline]] inline void negate_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t twice) {
    const __m512i from = set1_u8(twice).v;
    where_flagged(w0, w1, flags,
                  [&](__m512i w, __mmask64 set) { return _mm512_mask_sub_epi8(w, set, from, w); });
}

// Into the second-level cache, and into the first. Volatile, or compilers gather the prefetches of a whole block of weights at
// its beginning: F16 was read a tenth slower.
inline void prefetch(const void* p) {
    __asm__ volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(p)));
}
inline void prefetch_l1(const void* p) {
    __asm__ volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)));
}
inline void pause() { _mm_pause(); }

}  // namespace clarion::simd
