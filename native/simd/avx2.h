// AVX2 + FMA + F16C: products of bytes by vpmaddubsw and vpmaddwd.
#pragma once

#include "simd/avx2_vectors.h"

namespace clarion::simd {

// Magnitudes times activations, of which those whose flag is set count negative.
struct SignedBytes {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m256i a, b;

    static SignedBytes start(int32_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    // A byte below zero where the flag is set, above it elsewhere.
    [[gnu::always_inline]] static __m256i sign(__m256i flags, int bits) {
        return _mm256_add_epi8(_mm256_and_si256(flags, _mm256_set1_epi32(bits)), _mm256_set1_epi8(127));
    }
    [[gnu::always_inline]] static __m256i dot(__m256i sum, __m256i w0, __m256i w1, __m256i flags, __m256i q0,
                                              __m256i q1) {
        const __m256i set = flags_of_eight(flags);
        const __m256i p0 = _mm256_maddubs_epi16(w0, _mm256_sign_epi8(q0, sign(set, first_flags)));
        const __m256i p1 = _mm256_maddubs_epi16(w1, _mm256_sign_epi8(q1, sign(set, last_flags)));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(p0, p1), _mm256_set1_epi16(1)));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, i32x16 flags, const uint8_t* quads) {
        const __m256i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4);
        a = dot(a, w0.a, w1.a, flags.a, q0, q1);
        b = dot(b, w0.b, w1.b, flags.b, q0, q1);
    }
    i32x16 total() const { return {a, b}; }
};

// vpmaddubsw adds two products u8 * s8 into 16 bits and saturates. Up to 63 * 127 * 2 products, twice: 32004,
// it fits.
template <bool wide>
struct fast_accumulator {
    using Signed = SignedBytes;
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 4;
    __m256i a, b;

    static fast_accumulator start(int32_t initial) {
        return {_mm256_set1_epi32(initial), _mm256_set1_epi32(initial)};
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m256i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4), ones = _mm256_set1_epi16(1);
        a = _mm256_add_epi32(
            a, _mm256_madd_epi16(
                   _mm256_add_epi16(_mm256_maddubs_epi16(w0.a, q0), _mm256_maddubs_epi16(w1.a, q1)), ones));
        b = _mm256_add_epi32(
            b, _mm256_madd_epi16(
                   _mm256_add_epi16(_mm256_maddubs_epi16(w0.b, q0), _mm256_maddubs_epi16(w1.b, q1)), ones));
    }
    i32x16 total() const { return {a, b}; }
};

// Eight-bit weights would saturate: take them signed, |w - 128| <= 128, and move the sign to the activation.
// A pair is then at most 128 * 127 * 2 = 32512, so each needs its own widening.
template <>
struct fast_accumulator<true> {
    using Signed = SignedBytes;
    static constexpr int32_t bias = 128;
    static constexpr int quad_bytes = 4;
    __m256i a, b;

    static fast_accumulator start(int32_t initial) {
        return {_mm256_set1_epi32(initial), _mm256_set1_epi32(initial)};
    }
    [[gnu::always_inline]] static __m256i dot(__m256i sum, __m256i w, __m256i quad) {
        const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(quad, s));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m256i q0 = broadcast_quad(quads), q1 = broadcast_quad(quads + 4);
        a = dot(dot(a, w0.a, q0), w1.a, q1);
        b = dot(dot(b, w0.b, q0), w1.b, q1);
    }
    i32x16 total() const { return {a, b}; }
};

inline constexpr int32_t high_limit = 32639;

// Even columns, then odd ones, as vpmaddwd wants to meet the even and the odd bytes of four weights.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    const int16_t s[4] = {static_cast<int16_t>(a[0]), static_cast<int16_t>(a[2]), static_cast<int16_t>(a[1]),
                          static_cast<int16_t>(a[3])};
    std::memcpy(quad, s, 8);
}

inline void encode_quads(uint8_t* quads, i32x16 a) {
    // Within 128 bits: four of the low register, four of the high one, each as 0, 2, 1, 3.
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    const __m256i both =
        _mm256_shuffle_epi8(_mm256_packs_epi32(a.a, a.b), _mm256_broadcastsi128_si256(order));
    store_256(quads, _mm256_permute4x64_epi64(both, 0xd8));
}

struct high_accumulator {
    static constexpr int32_t bias = 0;
    static constexpr int quad_bytes = 8;
    __m256i a, b;

    static high_accumulator start(int32_t initial) {
        return {_mm256_set1_epi32(initial), _mm256_set1_epi32(initial)};
    }
    [[gnu::always_inline]] static __m256i dot(__m256i sum, __m256i w, __m256i even, __m256i odd) {
        const __m256i w_even = _mm256_and_si256(w, _mm256_set1_epi16(0xff)), w_odd = _mm256_srli_epi16(w, 8);
        return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(w_even, even)),
                                _mm256_madd_epi16(w_odd, odd));
    }
    [[gnu::always_inline]] void dot2(u8x64 w0, u8x64 w1, const uint8_t* quads) {
        const __m256i even0 = broadcast_quad(quads), odd0 = broadcast_quad(quads + 4);
        const __m256i even1 = broadcast_quad(quads + 8), odd1 = broadcast_quad(quads + 12);
        a = dot(dot(a, w0.a, even0, odd0), w1.a, even1, odd1);
        b = dot(dot(b, w0.b, even0, odd0), w1.b, even1, odd1);
    }
    i32x16 total() const { return {a, b}; }

    struct Nibbles;
};

// The same for bytes of two weights of four bits, whose nibbles are masked where they lie in 16 bits: a third of the
// instructions of taking bytes apart twice. Sums of what lies higher are that much larger: 16 odd columns of a group have
// at most 16 * 15 * 256 * 32639 = 2.0e9 < 2^31.
struct high_accumulator::Nibbles {
    static constexpr int32_t bias = high_accumulator::bias;
    static constexpr int quad_bytes = high_accumulator::quad_bytes;
    high_accumulator once;
    __m256i a16, b16, a256, b256;

    static Nibbles start(int32_t initial) {
        const __m256i zero = _mm256_setzero_si256();
        return {high_accumulator::start(initial), zero, zero, zero, zero};
    }
    [[gnu::always_inline]] static __m256i dot(__m256i sum, __m256i q, int nibble, __m256i quad) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(q, _mm256_set1_epi16(nibble)), quad));
    }
    [[gnu::always_inline]] void dot2_low(u8x64 q0, u8x64 q1, const uint8_t* quads) {
        const __m256i even0 = broadcast_quad(quads), odd0 = broadcast_quad(quads + 4);
        const __m256i even1 = broadcast_quad(quads + 8), odd1 = broadcast_quad(quads + 12);
        once.a = dot(dot(once.a, q0.a, 0xf, even0), q1.a, 0xf, even1);
        once.b = dot(dot(once.b, q0.b, 0xf, even0), q1.b, 0xf, even1);
        a256 = dot(dot(a256, q0.a, 0xf00, odd0), q1.a, 0xf00, odd1);
        b256 = dot(dot(b256, q0.b, 0xf00, odd0), q1.b, 0xf00, odd1);
    }
    [[gnu::always_inline]] void dot2_high(u8x64 q0, u8x64 q1, const uint8_t* quads) {
        const __m256i even0 = broadcast_quad(quads), odd0 = broadcast_quad(quads + 4);
        const __m256i even1 = broadcast_quad(quads + 8), odd1 = broadcast_quad(quads + 12);
        const auto last = [](__m256i sum, __m256i q, __m256i quad) {
            return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srli_epi16(q, 12), quad));
        };
        a16 = dot(dot(a16, q0.a, 0xf0, even0), q1.a, 0xf0, even1);
        b16 = dot(dot(b16, q0.b, 0xf0, even0), q1.b, 0xf0, even1);
        once.a = last(last(once.a, q0.a, odd0), q1.a, odd1);
        once.b = last(last(once.b, q0.b, odd0), q1.b, odd1);
    }
    i32x16 total() const {
        const auto sum = [](__m256i x, __m256i x16, __m256i x256) {
            return _mm256_add_epi32(_mm256_add_epi32(x, _mm256_srai_epi32(x16, 4)),
                                    _mm256_srai_epi32(x256, 8));
        };
        return {sum(once.a, a16, a256), sum(once.b, b16, b256)};
    }
};

// Of integers, multiply_tile leaves fewer than four tokens. Of floats: two registers a token for its sums, of 16.
inline constexpr int tile_fast = 1, tile_high = 1, tile_f32 = 4;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: those of 4-bit weights, of
// which vpmaddubsw's sums of a whole group are added in 16 bits, with enough independent ones to hide their latency.
inline double multiply_burst(int rounds, int32_t* keep) {
    __m256i w = _mm256_set1_epi8(3), a = _mm256_set1_epi8(5);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[6], pairs[6];
    for (auto& s : sums) s = _mm256_setzero_si256();
    for (int i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
        for (int q = 0; q < 8; ++q)
#pragma GCC unroll 6
            for (int n = 0; n < 6; ++n) {
                __asm__("" : "+x"(w), "+x"(a));  // a new product each time, as far as the compiler knows
                const __m256i pair = _mm256_maddubs_epi16(w, a);
                pairs[n] = q == 0 ? pair : _mm256_add_epi16(pairs[n], pair);
            }
#pragma GCC unroll 6
        for (int n = 0; n < 6; ++n) sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(pairs[n], ones));
    }
    __m256i sum = sums[0];
    for (int i = 1; i < 6; ++i) sum = _mm256_xor_si256(sum, sums[i]);
    *keep = _mm256_extract_epi32(sum, 0);
    return 6.0 * 8.0 * 32.0 * rounds;
}

}  // namespace clarion::simd

#include "simd/avx2_products.h"
