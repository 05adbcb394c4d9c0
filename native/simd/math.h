// Functions that are the same on every instruction set.
#pragma once

namespace clarion::simd {

// e^x = 2^n e^r, n the nearest integer to x / ln 2: Cody-Waite reduction by ln 2 in two parts, n being below 2^8 and
// the first part's last 9 bits zero, then the polynomial of degree 6 whose greatest relative error on [-ln2/2, ln2/2] is
// least (Remez): 2e-9. With the roundings of reduction and evaluation, measured over all x from -87 to 0, the relative
// error is below 1e-7 (1.7 units of 2^-24); e^0 is 1 exactly.
[[gnu::always_inline]] inline f32x16 exp_fraction(f32x16 x, i32x16& n) {
    n = to_i32(mul(x, set1(1.44269504088896341f)));
    const f32x16 nf = to_f32(n);
    f32x16 r = fma(nf, set1(-0.693145751953125f), x);
    r = fma(nf, set1(-1.42860677e-6f), r);
    f32x16 p = set1(0x1.6ab928p-10f);
    p = fma(p, r, set1(0x1.126d64p-7f));
    p = fma(p, r, set1(0x1.55589cp-5f));
    p = fma(p, r, set1(0x1.55540ap-3f));
    p = fma(p, r, set1(0x1.fffffap-2f));
    p = fma(p, r, set1(1.0f));
    return fma(p, r, set1(1.0f));
}

// e^x. Below -104 the result is 0, above 88.8 infinity, and NaN stays NaN.
inline f32x16 exp(f32x16 x) {
    i32x16 n;
    const f32x16 p =
        exp_fraction(min(set1(89.0f), max(set1(-104.0f), x)), n);  // in this order a NaN survives
    // 2^n in two factors, so that neither leaves the exponent's range.
    const i32x16 half = sub(shift_right<1>(add(n, set1(256))), set1(128)), rest = sub(n, half);
    const f32x16 a = as_f32(shift_left<23>(add(half, set1(127))));
    const f32x16 b = as_f32(shift_left<23>(add(rest, set1(127))));
    return mul(mul(p, a), b);
}

// e^x for x <= 0, where what is below 2^-126 does not matter: from -87.7 down the result is 0, and NaN stays NaN.
[[gnu::always_inline]] inline f32x16 exp_to_one(f32x16 x) {
    i32x16 n;
    const f32x16 p = exp_fraction(max(set1(-88.0f), x), n);
    return mul(p, as_f32(shift_left<23>(add(n, set1(127)))));  // n = -127 gives the factor 0
}

// x / (1 + e^-x)
inline f32x16 silu(f32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

// Sixteen activations as four quads (generic.h: encode_quad). A header that knows a better way has an overload that is
// no template.
template <typename Integers>
void encode_quads(uint8_t* quads, Integers a) {
    int32_t lane[16];
    store(lane, a);
    for (int q = 0; q < 4; ++q) encode_quad(quads + q * high_accumulator::quad_bytes, lane + 4 * q);
}

}  // namespace clarion::simd
