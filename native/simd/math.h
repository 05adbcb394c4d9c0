// Functions of f32x16 that are the same on every instruction set.
#pragma once

namespace clarion::simd {

// e^x. Cody-Waite reduction by ln 2 in two parts, then a polynomial of degree 6 on [-ln2/2, ln2/2]:
// relative error below 2e-7. Below -104 the result is 0, above 88.8 infinity, and NaN stays NaN.
inline f32x16 exp(f32x16 x) {
    const f32x16 clamped = min(set1(89.0f), max(set1(-104.0f), x));  // in this order a NaN survives
    const i32x16 n = to_i32(mul(clamped, set1(1.44269504088896341f)));
    const f32x16 nf = to_f32(n);
    f32x16 r = fma(nf, set1(-0.693145751953125f), clamped);
    r = fma(nf, set1(-1.42860677e-6f), r);
    f32x16 p = set1(1.0f / 720.0f);
    p = fma(p, r, set1(1.0f / 120.0f));
    p = fma(p, r, set1(1.0f / 24.0f));
    p = fma(p, r, set1(1.0f / 6.0f));
    p = fma(p, r, set1(0.5f));
    p = fma(p, r, set1(1.0f));
    p = fma(p, r, set1(1.0f));
    // 2^n in two factors, so that neither leaves the exponent's range.
    const i32x16 half = sub(shift_right<1>(add(n, set1(256))), set1(128)), rest = sub(n, half);
    const f32x16 a = as_f32(shift_left<23>(add(half, set1(127))));
    const f32x16 b = as_f32(shift_left<23>(add(rest, set1(127))));
    return mul(mul(p, a), b);
}

// x / (1 + e^-x)
inline f32x16 silu(f32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

}  // namespace clarion::simd
