#include "kernels/rms_norm.h"

#include <cmath>

#include "kernels/lanes.h"
#include "kernels/norm.h"
#include "kernels/row_decoder.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

std::vector<float> vector_weight(const OpSpec& spec, const Weight& weight, int64_t n) {
    if (weight.rows * weight.cols != n || weight.experts != 1)
        spec.fail({"weight '", weight.name, "' has ", weight.experts, " x ", weight.rows, " x ", weight.cols,
                   " elements, expected ", n});
    std::vector<float> x(static_cast<size_t>(n));
    for (int64_t r = 0; r < weight.rows; ++r) {
        const Extent extent = weight.extents->holding(0, r);
        if (extent.data == nullptr || extent.panels)
            spec.fail({"weight '", weight.name, "' is not resident as rows, where it is read"});
        dequantize(*weight.format, extent.data + (r - extent.first_row) * weight.row_bytes, weight.cols,
                   x.data() + r * weight.cols);
    }
    return x;
}

std::vector<float> vector_or(const OpSpec& spec, const Weight* weight, int64_t n, float otherwise) {
    return weight ? vector_weight(spec, *weight, n) : std::vector<float>(static_cast<size_t>(n), otherwise);
}

void RmsNorm::apply(const float* x, float* y) const {
    const auto width = static_cast<int64_t>(gain_.size());
    simd::f32x16 squares = simd::zero();
    for (int64_t i = 0; i < width; i += simd::lanes) {
        const simd::f32x16 v = load_n(x + i, width - i);
        squares = simd::fma(v, v, squares);
    }
    const float mean = simd::reduce_add(squares) / static_cast<float>(width);
    const simd::f32x16 scale = simd::set1(1.0f / std::sqrt(mean + eps_));
    for (int64_t i = 0; i < width; i += simd::lanes) {
        const simd::f32x16 gain = load_n(gain_.data() + i, width - i);
        store_n(y + i, simd::mul(simd::mul(load_n(x + i, width - i), scale), gain), width - i);
    }
}

std::vector<const Buffer*> expect_norm(const OpSpec& spec) {
    const Buffer& x = spec.input(0);
    expect_kind(spec, x, Kind::f32);
    std::vector<const Buffer*> outputs;
    for (const Buffer* out : spec.outputs) {
        if (!out) continue;
        expect_float(spec, *out);
        expect_like(spec, *out, x);
        outputs.push_back(out);
    }
    return outputs;
}

std::unique_ptr<Op> make_rms_norm(const OpSpec& spec) {
    spec.expect(1, {1, 2}, {0, 1});
    RmsNorm norm(vector_or(spec, spec.weight(0), spec.input(0).width, 1.0f),
                 static_cast<float>(RmsNormParameters(spec).eps));
    return std::make_unique<NormRows<RmsNorm>>(spec, std::move(norm));
}

}  // namespace clarion
