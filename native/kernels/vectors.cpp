// Rows combined with a vector that all of them share, or with a number that each has.
#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using Combine = simd::f32x16 (*)(simd::f32x16, simd::f32x16);

// y = combine(x, v). The vector is as long as the padded row.
template <Combine combine>
class WithVector final : public RowOp {
  public:
    WithVector(const Buffer& x, std::vector<float> v, const Buffer& y)
        : RowOp(x, x.width), x_(x), y_(y), v_(std::move(v)) {
        v_.resize(static_cast<size_t>((x.width + simd::lanes - 1) / simd::lanes * simd::lanes));
    }

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const float* x = f32_row(x_, row);
        float* y = f32_row(y_, row);
        for (int64_t i = 0; i < x_.width; i += simd::lanes)
            simd::store(y + i, combine(simd::load(x + i), simd::load(v_.data() + i)));
    }

    const Buffer &x_, &y_;
    std::vector<float> v_;
};

class MulRows final : public RowOp {
  public:
    MulRows(const Buffer& x, const Buffer& s, const Buffer& y) : RowOp(x, x.width), x_(x), s_(s), y_(y) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const float* x = f32_row(x_, row);
        const simd::f32x16 s = simd::set1(*f32_row(s_, row));
        float* y = f32_row(y_, row);
        for (int64_t i = 0; i < x_.width; i += simd::lanes)
            simd::store(y + i, simd::mul(simd::load(x + i), s));
    }

    const Buffer &x_, &s_, &y_;
};

// One input and one output, of one shape and in float32.
void expect_rows_like(const OpSpec& spec) {
    for (const Buffer* b : {&spec.input(0), &spec.output(0)}) expect_kind(spec, *b, Kind::f32);
    expect_like(spec, spec.output(0), spec.input(0));
}

template <Combine combine>
std::unique_ptr<Op> make_with_vector(const OpSpec& spec, bool may_be_one) {
    spec.expect(1, 1, 1);
    expect_rows_like(spec);
    const Buffer& x = spec.input(0);
    const Weight& weight = *spec.weight(0);
    const bool one = may_be_one && weight.rows == 1 && weight.cols == 1;
    std::vector<float> v = vector_weight(spec, weight, one ? 1 : x.width);
    if (one) v.assign(static_cast<size_t>(x.width), v[0]);
    return std::make_unique<WithVector<combine>>(x, std::move(v), spec.output(0));
}

}  // namespace

std::unique_ptr<Op> make_mul_vector(const OpSpec& spec) { return make_with_vector<simd::mul>(spec, true); }
std::unique_ptr<Op> make_add_vector(const OpSpec& spec) { return make_with_vector<simd::add>(spec, false); }

std::unique_ptr<Op> make_mul_rows(const OpSpec& spec) {
    spec.expect(2, 1, 0);
    expect_rows_like(spec);
    const Buffer &x = spec.input(0), &s = spec.input(1);
    expect_kind(spec, s, Kind::f32);
    expect_rows(spec, s, x.rows, x.slots_per_token);
    expect_width(spec, s, 1);
    return std::make_unique<MulRows>(x, s, spec.output(0));
}

}  // namespace clarion
