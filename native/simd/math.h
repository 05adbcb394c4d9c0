// Functions that are the same on every instruction set.
#pragma once

namespace clarion::simd {

// e^x = 2^n e^r, n the nearest integer to x / ln 2: Cody-Waite reduction by ln 2 in two parts, n being below 2^8 and
// the first part's last 9 bits zero, then the polynomial of degree 6 whose greatest relative error on [-ln2/2, ln2/2] is
// least (Remez): 2e-9. With the roundings of reduction and evaluation, measured over all x from -87 to 0, the relative
// error is below 1e-7 (1.7 units of 2^-24); e^0 is 1 exactly.
// The polynomial is 1 + r slope.
[[gnu::always_inline]] inline f32x16 exp_slope(f32x16 x, i32x16& n, f32x16& r) {
    n = to_i32(mul(x, set1(1.44269504088896341f)));
    const f32x16 nf = to_f32(n);
    r = fma(nf, set1(-0.693145751953125f), x);
    r = fma(nf, set1(-1.42860677e-6f), r);
    f32x16 p = set1(0x1.6ab928p-10f);
    p = fma(p, r, set1(0x1.126d64p-7f));
    p = fma(p, r, set1(0x1.55589cp-5f));
    p = fma(p, r, set1(0x1.55540ap-3f));
    p = fma(p, r, set1(0x1.fffffap-2f));
    return fma(p, r, set1(1.0f));
}
[[gnu::always_inline]] inline f32x16 exp_fraction(f32x16 x, i32x16& n) {
    f32x16 r;
    const f32x16 slope = exp_slope(x, n, r);
    return fma(slope, r, set1(1.0f));
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

// 1 / (1 + e^-x): relative error below 3e-7 from -87 up, and 0 from -89 down.
inline f32x16 sigmoid(f32x16 x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

// tanh(x) = -m / (2 + m), where m = e^(-2|x|) - 1 = 2^n r slope + (2^n - 1): no digits cancel, n being 0 where x is small.
// Relative error below 4e-7 for every x.
inline f32x16 tanh(f32x16 x) {
    i32x16 n;
    f32x16 r;
    const f32x16 slope = exp_slope(max(set1(-88.0f), mul(set1(-2.0f), abs(x))), n, r);
    const f32x16 power = as_f32(shift_left<23>(add(n, set1(127))));  // 2^n; n = -127 gives 0
    const f32x16 m = add(mul(power, mul(slope, r)), sub(power, set1(1.0f)));
    const f32x16 size = div(sub(zero(), m), add(set1(2.0f), m));
    const i32x16 sign = shift_left<31>(shift_right<31>(as_i32(x)));
    return as_f32(bit_or(as_i32(size), sign));
}

// ln(1 + e^x) = max(x, 0) + ln(1 + u), where u = e^-|x|. ln(1 + u) = s (2 + s^2 p(s^2)), where s = u / (2 + u) is at most 1/3:
// the series of 2 artanh(s), shortened so that the greatest relative error is least, 4e-9. With the roundings the relative
// error is below 5e-7 from -87 up, and below it the result is less than 2^-125.
inline f32x16 softplus(f32x16 x) {
    const f32x16 u = exp_to_one(sub(zero(), abs(x)));
    const f32x16 s = div(u, add(set1(2.0f), u)), square = mul(s, s);
    f32x16 p = set1(0x1.208bdp-2f);
    p = fma(p, square, set1(0x1.1e510ap-2f));
    p = fma(p, square, set1(0x1.99dae6p-2f));
    p = fma(p, square, set1(0x1.5554ep-1f));
    p = fma(p, square, set1(2.0f));
    return fma(s, p, max(zero(), x));
}

// What gelu takes from max(x, 0), for a = |x|: a tail(a), where tail is the part of a distribution beyond a. From 14 on all
// tails are 0 as floats, so a is at most that, and infinities have the limits of the function.
inline constexpr float gelu_end = 14.0f;

// Of the standard normal distribution: e^(-a^2/2) / 2 at 0, times a quotient of polynomials whose greatest relative error for a
// up to 14 is least, 6e-9. All coefficients are positive, so that nothing cancels.
inline f32x16 normal_tail(f32x16 a) {
    f32x16 p = set1(0x1.0b3b18p-8f), q = set1(0x1.4eeb82p-7f);
    p = fma(p, a, set1(0x1.4abb84p-5f));
    q = fma(q, a, set1(0x1.9e8a24p-4f));
    p = fma(p, a, set1(0x1.75aea8p-3f));
    q = fma(q, a, set1(0x1.dea5ep-2f));
    p = fma(p, a, set1(0x1.bfbec6p-2f));
    q = fma(q, a, set1(0x1.3304c6p+0f));
    p = fma(p, a, set1(0.5f));
    q = fma(q, a, set1(0x1.ac2194p+0f));
    q = fma(q, a, set1(1.0f));
    return mul(exp_to_one(mul(mul(set1(-0.5f), a), a)), div(p, q));
}
// Of the distribution whose parts below x are sigmoid(sqrt(8/pi) (x + 0.044715 x^3)).
inline f32x16 tanh_tail(f32x16 a) {
    constexpr float linear = -1.5957691216057308f,
                    cubic = -0.07135481627260025f;  // sqrt(8/pi), 0.044715 sqrt(8/pi)
    const f32x16 e = exp_to_one(mul(a, fma(mul(set1(cubic), a), a, set1(linear))));
    return div(e, add(set1(1.0f), e));
}
// The error is below 1.5e-7 |x|, measured over all x: a rounding of x and one of the tail.
template <f32x16 (*tail)(f32x16)>
f32x16 gelu(f32x16 x) {
    const f32x16 a = min(set1(gelu_end), abs(x));
    return sub(max(zero(), x), mul(a, tail(a)));
}

// Sixteen activations as four quads (generic.h: encode_quad). A header that knows a better way has an overload that is
// no template.
template <typename Integers>
void encode_quads(uint8_t* quads, Integers a) {
    int32_t lane[16];
    store(lane, a);
    for (int q = 0; q < 4; ++q) encode_quad(quads + q * high_accumulator::quad_bytes, lane + 4 * q);
}

// Lane i of the result is the largest lane of v[i], or the sum of its lanes in any order, for the first n of up to 16 vectors.
// A header that knows a better way for all 16 has max_across_all and add_across_all.
inline constexpr int few_across = 5;  // up to here one after the other is as fast
template <typename Floats>
Floats max_across(const Floats* v, int n) {
    if constexpr (requires { max_across_all(v); })
        if (n > few_across) return max_across_all(v);
    float each[16] = {};
    for (int i = 0; i < n; ++i) each[i] = reduce_max(v[i]);
    return load(each);
}
template <typename Floats>
Floats add_across(const Floats* v, int n) {
    if constexpr (requires { add_across_all(v); })
        if (n > few_across) return add_across_all(v);
    float each[16] = {};
    for (int i = 0; i < n; ++i) each[i] = reduce_add(v[i]);
    return load(each);
}

}  // namespace clarion::simd
