// layer_norm: y = (x - mean) / sqrt(variance + eps) * gain + shift over rows (Ba et al. 2016).
//
// Three passes over a row that stays in L1. The mean that the first one finds is rounded, and large where all elements are; so
// the second one also finds the mean of the differences from it, which corrects both the differences and their squares.
#include <cmath>

#include "kernels/lanes.h"
#include "kernels/norm.h"
#include "kernels/rms_norm.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class LayerNorm {
  public:
    LayerNorm(std::vector<float> gain, std::vector<float> shift, float eps)
        : gain_(std::move(gain)), shift_(std::move(shift)), eps_(eps) {}

    void apply(const float* x, float* y) const {
        const auto width = static_cast<int64_t>(gain_.size());
        const float n = static_cast<float>(width);
        simd::f32x16 sum = simd::zero();
        for (int64_t i = 0; i < width; i += simd::lanes) sum = simd::add(sum, load_n(x + i, width - i));
        const simd::f32x16 mean = simd::set1(simd::reduce_add(sum) / n);

        simd::f32x16 squares = simd::zero();
        sum = simd::zero();
        for (int64_t i = 0; i < width; i += simd::lanes) {
            store_n(y + i, simd::sub(load_n(x + i, width - i), mean), width - i);
            const simd::f32x16 d = load_n(y + i, width - i);  // zeros behind the row
            sum = simd::add(sum, d);
            squares = simd::fma(d, d, squares);
        }
        const float rest = simd::reduce_add(sum) / n;
        const float variance = simd::reduce_add(squares) / n - rest * rest;
        const simd::f32x16 scale = simd::set1(1.0f / std::sqrt(variance + eps_));
        for (int64_t i = 0; i < width; i += simd::lanes) {
            const simd::f32x16 d = simd::sub(load_n(y + i, width - i), simd::set1(rest));
            const simd::f32x16 scaled = simd::mul(simd::mul(d, scale), load_n(gain_.data() + i, width - i));
            store_n(y + i, simd::add(scaled, load_n(shift_.data() + i, width - i)), width - i);
        }
    }

  private:
    std::vector<float> gain_, shift_;  // [width]
    float eps_;
};

}  // namespace

std::unique_ptr<Op> make_layer_norm(const OpSpec& spec) {
    spec.expect(1, {1, 2}, {0, 2});
    const int64_t width = spec.input(0).width;
    LayerNorm norm(vector_or(spec, spec.weight(0), width, 1.0f), vector_or(spec, spec.weight(1), width, 0.0f),
                   static_cast<float>(LayerNormParameters(spec).eps));
    return std::make_unique<NormRows<LayerNorm>>(spec, std::move(norm));
}

}  // namespace clarion
