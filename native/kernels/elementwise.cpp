#include "kernels/elementwise.h"

#include "operations.h"

namespace clarion {

void expect_elementwise(const OpSpec& spec, size_t n, bool may_encode) {
    spec.expect(n, 1, 0);
    const Buffer& out = spec.output(0);
    for (size_t i = 0; i < n; ++i) {
        expect_kind(spec, spec.input(i), Kind::f32);
        expect_like(spec, spec.input(i), out);
    }
    if (may_encode)
        expect_float(spec, out);
    else
        expect_kind(spec, out, Kind::f32);
}

std::unique_ptr<Op> make_silu(const OpSpec& spec) {
    return make_elementwise<1>(spec, [](simd::f32x16 x) { return simd::silu(x); });
}
std::unique_ptr<Op> make_mul(const OpSpec& spec) {
    return make_elementwise<2>(spec, [](simd::f32x16 x, simd::f32x16 y) { return simd::mul(x, y); });
}
std::unique_ptr<Op> make_add(const OpSpec& spec) {
    return make_elementwise<2>(spec, [](simd::f32x16 x, simd::f32x16 y) { return simd::add(x, y); });
}
std::unique_ptr<Op> make_swiglu(const OpSpec& spec) {
    const auto swiglu = [](simd::f32x16 g, simd::f32x16 u) { return simd::mul(simd::silu(g), u); };
    return make_elementwise<2>(spec, swiglu, true);
}

}  // namespace clarion
