#include "kernels/rope.h"

#include <cmath>
#include <cstring>

#include "kernels/lanes.h"
#include "kernels/rows.h"
#include "operations.h"

namespace clarion {

HeadTransform::HeadTransform(const OpSpec& spec, const Buffer& table, const Weight* gain, int64_t head_dim,
                             int64_t n_rot, bool neox, double eps)
    : head_dim_(head_dim), n_rot_(n_rot), neox_(neox) {
    expect_kind(spec, table, Kind::f32);
    expect_rows(spec, table, Rows::tokens);
    expect_width(spec, table, n_rot_);
    if (n_rot_ % 2 != 0 || n_rot_ > head_dim_)
        spec.fail({"n_rot: found ", n_rot_, ", expected an even number up to head_dim, ", head_dim_});
    if (gain) norm_.emplace(vector_weight(spec, *gain, head_dim_), static_cast<float>(eps));
}

void HeadTransform::apply(const float* x, const float* table, float* y) const {
    if (norm_)
        norm_->apply(x, y);
    else if (x != y)
        std::memcpy(y, x, 4 * static_cast<size_t>(head_dim_));
    const int64_t half = n_rot_ / 2;
    const float *cos = table, *sin = table + half;
    if (!neox_) {
        for (int64_t i = 0; i < half; ++i) {
            const float a = y[2 * i], b = y[2 * i + 1];
            y[2 * i] = a * cos[i] - b * sin[i];
            y[2 * i + 1] = a * sin[i] + b * cos[i];
        }
        return;
    }
    for (int64_t i = 0; i < half; i += simd::lanes) {
        const int64_t n = half - i;
        const simd::f32x16 a = load_n(y + i, n), b = load_n(y + half + i, n), c = load_n(cos + i, n),
                           s = load_n(sin + i, n);
        store_n(y + i, simd::sub(simd::mul(a, c), simd::mul(b, s)), n);
        store_n(y + half + i, simd::add(simd::mul(a, s), simd::mul(b, c)), n);
    }
}

namespace {

// One row for each token: n_rot/2 cosines, then n_rot/2 sines. The angle, position * inv_freq, is computed in
// double: in float it would be wrong by 1e-3 at position 10^4.
class RopeTable final : public RowOp {
  public:
    RopeTable(const Buffer& r, std::vector<double> inv_freq, double magnitude)
        : RowOp(r, r.width * 16), r_(r), inv_freq_(std::move(inv_freq)), magnitude_(magnitude) {}

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        float* r = f32_row(r_, row);
        const size_t half = inv_freq_.size();
        for (size_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(batch.positions[row]) * inv_freq_[i];
            r[i] = static_cast<float>(std::cos(angle) * magnitude_);
            r[half + i] = static_cast<float>(std::sin(angle) * magnitude_);
        }
    }

    const Buffer& r_;
    std::vector<double> inv_freq_;
    double magnitude_;
};

class Rope final : public RowOp {
  public:
    Rope(const Buffer& x, const Buffer& table, int64_t n_head, HeadTransform head)
        : RowOp(x, x.width), x_(x), table_(table), n_head_(n_head), head_(std::move(head)) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        for (int64_t h = 0; h < n_head_; ++h) {
            float* x = f32_row(x_, row) + h * head_.head_dim();
            head_.apply(x, f32_row(table_, row), x);
        }
    }

    const Buffer &x_, &table_;
    int64_t n_head_;
    HeadTransform head_;
};

}  // namespace

std::unique_ptr<Op> make_rope_table(const OpSpec& spec) {
    spec.expect(0, 1, 0);
    const Buffer& r = spec.output(0);
    const RopeTableParameters p(spec);
    expect_kind(spec, r, Kind::f32);
    expect_rows(spec, r, Rows::tokens);
    expect_width(spec, r, 2 * static_cast<int64_t>(p.inv_freq.size()));
    return std::make_unique<RopeTable>(r, p.inv_freq, p.magnitude);
}

std::unique_ptr<Op> make_rope(const OpSpec& spec) {
    spec.expect(2, {0, 1}, {0, 1});
    const Buffer &x = spec.input(0), &table = spec.input(1);
    const RopeParameters p(spec);
    HeadTransform head(spec, table, spec.weight(0), p.head_dim, p.n_rot, p.neox, p.eps);
    expect_kind(spec, x, Kind::f32);
    expect_rows(spec, x, Rows::tokens);
    expect_heads(spec, x, p.n_head, p.head_dim);
    expect_in_place(spec, 0, x);
    return std::make_unique<Rope>(x, table, p.n_head, std::move(head));
}

}  // namespace clarion
