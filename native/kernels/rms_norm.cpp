#include "kernels/rms_norm.h"

#include <cmath>

#include "kernels/activations.h"
#include "kernels/lanes.h"
#include "kernels/row_decoder.h"
#include "kernels/rows.h"
#include "machine/modules.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

std::vector<float> vector_weight(const OpSpec& spec, const Weight& weight, int64_t n) {
    if (weight.rows * weight.cols != n || weight.experts != 1)
        spec.fail({"weight '", weight.name, "' has ", weight.experts, " x ", weight.rows, " x ", weight.cols,
                   " elements, expected ", n});
    std::vector<float> x(static_cast<size_t>(n));
    const Format& format = *find_format(weight.format);
    for (int64_t r = 0; r < weight.rows; ++r) {
        const Extent extent = weight.extents->holding(0, r);
        if (extent.data == nullptr || extent.panels)
            spec.fail({"weight '", weight.name, "' is not resident as rows, where it is read"});
        dequantize(format, extent.data + (r - extent.first_row) * weight.row_bytes, weight.cols,
                   x.data() + r * weight.cols);
    }
    return x;
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

namespace {

class Norm final : public RowOp {
  public:
    Norm(const Buffer& x, std::vector<const Buffer*> outputs, RmsNorm norm)
        : RowOp(x, x.width), x_(x), outputs_(std::move(outputs)), norm_(std::move(norm)) {}

    size_t scratch_bytes() const override { return static_cast<size_t>(row_bytes(Kind::f32, x_.width)); }

  private:
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        auto* y = reinterpret_cast<float*>(scratch.data);
        norm_.apply(f32_row(x_, row), y);
        for (const Buffer* out : outputs_)
            encode_row(out->kind, y, x_.width, out->data + row * out->row_bytes);
    }

    const Buffer& x_;
    std::vector<const Buffer*> outputs_;
    RmsNorm norm_;
};

}  // namespace

std::unique_ptr<Op> make_rms_norm(const OpSpec& spec) {
    spec.expect(1, {1, 2}, 1);
    const Buffer& x = spec.input(0);
    expect_kind(spec, x, Kind::f32);
    std::vector<const Buffer*> outputs;
    for (const Buffer* out : spec.outputs) {
        if (!out) continue;
        if (out->kind == Kind::i32) spec.fail({"buffer '", out->name, "' is i32"});
        expect_like(spec, *out, x);
        outputs.push_back(out);
    }
    RmsNorm norm(vector_weight(spec, *spec.weight(0), x.width),
                 static_cast<float>(RmsNormParameters(spec).eps));
    return std::make_unique<Norm>(x, std::move(outputs), std::move(norm));
}

}  // namespace clarion
