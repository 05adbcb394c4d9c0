// Sixteen searches side by side: each lane of a vector is one group of weights that share a scale. No sum ever
// crosses lanes, so nothing is reduced, and a group's result does not depend on its neighbours.
//
// Vectors are the compiler's own, in pieces as wide as the processor's registers. Products are never fused with
// sums (-ffp-contract=off), so that every instruction set writes the same bytes.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace clarion::quantize {

inline constexpr int lanes = 16;

#if defined(__AVX512F__)
inline constexpr int piece_lanes = 16;
#elif defined(__AVX2__)
inline constexpr int piece_lanes = 8;
#else
inline constexpr int piece_lanes = 4;
#endif
inline constexpr int pieces = lanes / piece_lanes;

typedef float FloatPiece __attribute__((vector_size(4 * piece_lanes)));
typedef int32_t IntPiece __attribute__((vector_size(4 * piece_lanes)));

struct I {
    IntPiece v[pieces];
};
struct F {
    FloatPiece v[pieces];
};

// Loops over a group's weights: as many steps at once as there are registers for.
#if defined(__AVX512F__)
#define CLARION_UNROLL _Pragma("GCC unroll 4")
#elif defined(__AVX2__)
#define CLARION_UNROLL _Pragma("GCC unroll 2")
#else
#define CLARION_UNROLL _Pragma("GCC unroll 1")
#endif

#define CLARION_LANES [[gnu::always_inline]] inline
#define CLARION_EACH_PIECE _Pragma("GCC unroll 4") for (int i = 0; i < pieces; ++i)

CLARION_LANES F all(float x) {
    F r;
    CLARION_EACH_PIECE r.v[i] = x - FloatPiece{};
    return r;
}
CLARION_LANES I all(int32_t x) {
    I r;
    CLARION_EACH_PIECE r.v[i] = x - IntPiece{};
    return r;
}
// Piece by piece: a copy of the whole would go through the stack in narrower steps than it is read again.
CLARION_LANES F load(const float* p) {
    F r;
    CLARION_EACH_PIECE std::memcpy(&r.v[i], p + piece_lanes * i, sizeof r.v[i]);
    return r;
}
CLARION_LANES I load(const int32_t* p) {
    I r;
    CLARION_EACH_PIECE std::memcpy(&r.v[i], p + piece_lanes * i, sizeof r.v[i]);
    return r;
}
CLARION_LANES void store(float* p, F a) {
    CLARION_EACH_PIECE std::memcpy(p + piece_lanes * i, &a.v[i], sizeof a.v[i]);
}
CLARION_LANES void store(int32_t* p, I a) {
    CLARION_EACH_PIECE std::memcpy(p + piece_lanes * i, &a.v[i], sizeof a.v[i]);
}

#define CLARION_OPERATOR(type, op)                    \
    CLARION_LANES type operator op(type a, type b) {  \
        CLARION_EACH_PIECE a.v[i] = a.v[i] op b.v[i]; \
        return a;                                     \
    }
CLARION_OPERATOR(F, +)
CLARION_OPERATOR(F, -)
CLARION_OPERATOR(F, *)
CLARION_OPERATOR(F, /)
CLARION_OPERATOR(I, +)
CLARION_OPERATOR(I, -)
CLARION_OPERATOR(I, &)
CLARION_OPERATOR(I, |)
#undef CLARION_OPERATOR

#define CLARION_COMPARISON(op)                        \
    CLARION_LANES I operator op(F a, F b) {           \
        I r;                                          \
        CLARION_EACH_PIECE r.v[i] = a.v[i] op b.v[i]; \
        return r;                                     \
    }
CLARION_COMPARISON(<)
CLARION_COMPARISON(<=)
CLARION_COMPARISON(>)
CLARION_COMPARISON(>=)
#undef CLARION_COMPARISON

CLARION_LANES F select(I mask, F yes, F no) {
    CLARION_EACH_PIECE no.v[i] = mask.v[i] ? yes.v[i] : no.v[i];
    return no;
}
// a < b ? a : b is one instruction of x86, for which compilers take two. (Masked, or GCC 12 warns of its header.)
#if defined(__AVX512F__)
CLARION_LANES FloatPiece lesser(FloatPiece a, FloatPiece b) { return _mm512_maskz_min_ps(0xffff, a, b); }
CLARION_LANES FloatPiece greater(FloatPiece a, FloatPiece b) { return _mm512_maskz_max_ps(0xffff, a, b); }
#elif defined(__AVX2__)
CLARION_LANES FloatPiece lesser(FloatPiece a, FloatPiece b) { return _mm256_min_ps(a, b); }
CLARION_LANES FloatPiece greater(FloatPiece a, FloatPiece b) { return _mm256_max_ps(a, b); }
#elif defined(__SSE2__)
CLARION_LANES FloatPiece lesser(FloatPiece a, FloatPiece b) { return _mm_min_ps(a, b); }
CLARION_LANES FloatPiece greater(FloatPiece a, FloatPiece b) { return _mm_max_ps(a, b); }
#else
CLARION_LANES FloatPiece lesser(FloatPiece a, FloatPiece b) { return a < b ? a : b; }
CLARION_LANES FloatPiece greater(FloatPiece a, FloatPiece b) { return a > b ? a : b; }
#endif
CLARION_LANES F min(F a, F b) {
    CLARION_EACH_PIECE a.v[i] = lesser(a.v[i], b.v[i]);
    return a;
}
CLARION_LANES F max(F a, F b) {
    CLARION_EACH_PIECE a.v[i] = greater(a.v[i], b.v[i]);
    return a;
}
CLARION_LANES I shifted_left(I a, int bits) {
    CLARION_EACH_PIECE a.v[i] = a.v[i] << bits;
    return a;
}
CLARION_LANES I shifted_right(I a, int bits) {  // the sign fills in
    CLARION_EACH_PIECE a.v[i] = a.v[i] >> bits;
    return a;
}
CLARION_LANES F abs(F a) {
    CLARION_EACH_PIECE a.v[i] = (FloatPiece)((IntPiece)a.v[i] & 0x7fffffff);
    return a;
}
CLARION_LANES I bits_of(F a) {
    I r;
    CLARION_EACH_PIECE r.v[i] = (IntPiece)a.v[i];
    return r;
}
CLARION_LANES F of_bits(I a) {
    F r;
    CLARION_EACH_PIECE r.v[i] = (FloatPiece)a.v[i];
    return r;
}
// Towards zero; |a| < 2^31.
CLARION_LANES I truncated(F a) {
    I r;
    CLARION_EACH_PIECE r.v[i] = __builtin_convertvector(a.v[i], IntPiece);
    return r;
}
CLARION_LANES F to_float(I a) {
    F r;
    CLARION_EACH_PIECE r.v[i] = __builtin_convertvector(a.v[i], FloatPiece);
    return r;
}
// To the nearest integer, halves to the even one; |a| < 2^22. Beside 1.5 * 2^23 a float has no fraction.
CLARION_LANES F rounded(F a) {
    const F magic = all(12582912.0f);
    return (a + magic) - magic;
}
CLARION_LANES F clamp(F a, F low, F high) { return min(max(a, low), high); }
CLARION_LANES F square(F a) { return a * a; }
// a / b, and 0 where b is not positive.
CLARION_LANES F ratio(F a, F b) {
    const I positive = b > all(0.0f);
    return select(positive, a / select(positive, b, all(1.0f)), all(0.0f));
}

}  // namespace clarion::quantize
