// head_norm: the norm of each head apart, times a number, which the gains take in.
#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "operations.h"

namespace clarion {

namespace {

class HeadNorm final : public RowOp {
  public:
    HeadNorm(const Buffer& x, const Buffer& y, int64_t head_dim, std::vector<RmsNorm> norms)
        : RowOp(x, x.width), x_(x), y_(y), head_dim_(head_dim), norms_(std::move(norms)) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const float* x = f32_row(x_, row);
        float* y = f32_row(y_, row);
        for (size_t h = 0; h < norms_.size(); ++h, x += head_dim_, y += head_dim_) norms_[h].apply(x, y);
    }

    const Buffer &x_, &y_;
    int64_t head_dim_;
    std::vector<RmsNorm> norms_;  // of each head
};

}  // namespace

std::unique_ptr<Op> make_head_norm(const OpSpec& spec) {
    spec.expect(1, 1, {0, 1});
    const HeadNormParameters p(spec);
    const Buffer &x = spec.input(0), &y = spec.output(0);
    for (const Buffer* b : {&x, &y}) expect_kind(spec, *b, Kind::f32);
    expect_like(spec, y, x);
    expect_heads(spec, x, p.n_head, p.head_dim);
    const Weight* weight = spec.weight(0);
    const bool each = weight != nullptr && weight->rows * weight->cols != p.head_dim;
    std::vector<float> gain = vector_or(spec, weight, each ? x.width : p.head_dim, 1.0f);
    for (float& g : gain) g = static_cast<float>(static_cast<double>(g) * p.scale);
    std::vector<RmsNorm> norms;
    for (int64_t h = 0; h < p.n_head; ++h) {
        const auto first = gain.begin() + (each ? h * p.head_dim : 0);
        norms.emplace_back(std::vector<float>(first, first + p.head_dim), static_cast<float>(p.eps));
    }
    return std::make_unique<HeadNorm>(x, y, p.head_dim, std::move(norms));
}

}  // namespace clarion
