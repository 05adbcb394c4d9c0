// Activations and gates that fewer models have than silu and swiglu.
#include "kernels/elementwise.h"
#include "operations.h"

namespace clarion {

using simd::f32x16;

std::unique_ptr<Op> make_gelu(const OpSpec& spec) {
    if (GeluParameters(spec).tanh)
        return make_elementwise<1>(spec, [](f32x16 x) { return simd::gelu<simd::tanh_tail>(x); }, true);
    return make_elementwise<1>(spec, [](f32x16 x) { return simd::gelu<simd::normal_tail>(x); }, true);
}

std::unique_ptr<Op> make_geglu(const OpSpec& spec) {
    if (GegluParameters(spec).tanh)
        return make_elementwise<2>(
            spec, [](f32x16 g, f32x16 u) { return simd::mul(simd::gelu<simd::tanh_tail>(g), u); }, true);
    return make_elementwise<2>(
        spec, [](f32x16 g, f32x16 u) { return simd::mul(simd::gelu<simd::normal_tail>(g), u); }, true);
}

std::unique_ptr<Op> make_relu_squared(const OpSpec& spec) {
    const auto relu_squared = [](f32x16 x) {
        const f32x16 positive = simd::max(simd::zero(), x);
        return simd::mul(positive, positive);
    };
    return make_elementwise<1>(spec, relu_squared, true);
}

std::unique_ptr<Op> make_swiglu_clamped(const OpSpec& spec) {
    const SwigluClampedParameters p(spec);
    const auto alpha = static_cast<float>(p.alpha), limit = static_cast<float>(p.limit),
               shift = static_cast<float>(p.shift);
    const auto clamped = [=](f32x16 g, f32x16 u) {
        g = simd::min(simd::set1(limit), g);  // in this order a NaN survives
        u = simd::max(simd::set1(-limit), simd::min(simd::set1(limit), u));
        const f32x16 gate = simd::mul(g, simd::sigmoid(simd::mul(simd::set1(alpha), g)));
        return simd::mul(gate, simd::add(u, simd::set1(shift)));
    };
    return make_elementwise<2>(spec, clamped, true);
}

std::unique_ptr<Op> make_logistic(const OpSpec& spec) {
    return make_elementwise<1>(spec, [](f32x16 x) { return simd::sigmoid(x); });
}

std::unique_ptr<Op> make_tanh(const OpSpec& spec) {
    const auto cap = static_cast<float>(TanhParameters(spec).cap);
    return make_elementwise<1>(spec, [=](f32x16 x) {
        const f32x16 most = simd::set1(cap);
        return simd::mul(most, simd::tanh(simd::div(x, most)));
    });
}

std::unique_ptr<Op> make_softplus(const OpSpec& spec) {
    return make_elementwise<1>(spec, [](f32x16 x) { return simd::softplus(x); });
}

std::unique_ptr<Op> make_scale(const OpSpec& spec) {
    const auto factor = static_cast<float>(ScaleParameters(spec).factor);
    return make_elementwise<1>(spec, [=](f32x16 x) { return simd::mul(x, simd::set1(factor)); });
}

}  // namespace clarion
