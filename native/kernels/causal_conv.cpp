// causal_conv: each column's sum over the last tokens, y[t] = Σ w[i] x[t - taps + 1 + i] + b, then silu where asked for.
//
// A state is [block of 256 columns][taps - 1][256]: the last rows, that of position p at p modulo (taps - 1), so that a token
// replaces the oldest row and no row moves. A block and its weights stay in L1, and rows are read in pieces of 1 KB.
//
// What bounds it is silu: an e^x and a division for each column, some 30 cycles for a vector of 16 where the sum of four
// taps takes 4 products, 8 loads and 1 store.
#include "kernels/lanes.h"
#include "kernels/recurrence.h"
#include "kernels/rms_norm.h"
#include "machine/checked.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class CausalConv final : public RecurrentOp {
  public:
    CausalConv(const OpSpec& spec, const CausalConvParameters& p, const std::vector<float>& w,
               std::vector<float> b)
        : RecurrentOp(spec, p.state, (p.taps - 1) * spec.input(0).width, {&spec.input(0)},
                      (p.taps - 1) * std::min(block, spec.input(0).width), 1),
          n_(spec.input(0).width),
          taps_(p.taps),
          silu_(p.silu),
          y_(spec.output(0)),
          w_(w.size()),
          b_(std::move(b)) {
        for (int64_t column = 0; column < n_; ++column)
            for (int64_t tap = 0; tap < taps_; ++tap)
                w_[static_cast<size_t>(tap * n_ + column)] = w[static_cast<size_t>(column * taps_ + tap)];
        for (int64_t first = 0; first < n_; first += block)
            tiles_.push_back({first * (taps_ - 1), std::min(block, n_ - first) * (taps_ - 1)});
    }

  private:
    static constexpr int64_t block = 256;

    void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch&) const override {
        const int64_t first = i * block, width = std::min(block, n_ - first), kept = taps_ - 1;
        const Tile& tile = tiles_[static_cast<size_t>(i)];
        const int64_t fetch = tokens.fetch(tile);
        apply(tokens, span, tile, [&](float* s, int64_t p) {
            const float* x = row(tokens, 0, p) + first;
            const int64_t oldest = p % kept;
            if (fetch) prefetch_row(s + fetch, fetch);
            if (const int64_t later = p + tokens_ahead; !tokens.again(p) && later < tokens.end()) {
                prefetch_row(row(tokens, 0, later) + first, width);
                prefetch_row(batch_row(tokens, y_, later) + first, width);
            }
            if (!tokens.again(p)) {
                float* y = batch_row(tokens, y_, p) + first;
                for (int64_t c = 0; c < width; c += simd::lanes) {
                    const int64_t left = width - c;
                    const float* w = w_.data() + first + c;
                    simd::f32x16 sum = b_.empty() ? simd::zero() : load_n(b_.data() + first + c, left);
                    for (int64_t tap = 0, at = oldest; tap < kept; ++tap, at = at + 1 < kept ? at + 1 : 0)
                        sum = simd::fma(load_n(w + tap * n_, left), load_n(s + at * width + c, left), sum);
                    sum = simd::fma(load_n(w + kept * n_, left), load_n(x + c, left), sum);
                    store_n(y + c, silu_ ? simd::silu(sum) : sum, left);
                }
            }
            std::memcpy(s + oldest * width, x, static_cast<size_t>(width) * sizeof(float));
        });
    }

    int64_t n_, taps_;
    bool silu_;
    const Buffer& y_;
    std::vector<float> w_;  // [taps, n]
    std::vector<float> b_;  // [n], or empty
};

}  // namespace

std::unique_ptr<Op> make_causal_conv(const OpSpec& spec) {
    const CausalConvParameters p(spec);
    spec.expect(1, 1, {1, 2});
    const Buffer& x = spec.input(0);
    expect_kind(spec, x, Kind::f32);
    expect_rows(spec, x, Rows::tokens);
    expect_kind(spec, spec.output(0), Kind::f32);
    expect_like(spec, spec.output(0), x);
    if (p.taps < 2 || p.taps > 1024) spec.fail({"taps: found ", p.taps, ", expected 2 to 1024"});
    std::vector<float> b;
    if (const Weight* weight = spec.weight(1)) b = vector_weight(spec, *weight, x.width);
    return std::make_unique<CausalConv>(spec, p, vector_weight(spec, *spec.weight(0), x.width * p.taps),
                                        std::move(b));
}

}  // namespace clarion
