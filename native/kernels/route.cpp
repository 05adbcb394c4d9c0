// Mixture of experts: which experts a token goes to, and the sum of what they say.
#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class Route final : public RowOp {
  public:
    Route(const Buffer& scores, const Buffer& ids, const Buffer& weights, bool normalize)
        : RowOp(scores, scores.width * ids.width),
          scores_(scores),
          ids_(ids),
          weights_(weights),
          normalize_(normalize) {}

    size_t scratch_bytes() const override { return 2 * static_cast<size_t>(scores_.row_bytes); }

  private:
    // The scores decide, highest first and the lower id where they are equal; a NaN counts as the lowest, so
    // the ids are distinct and in range whatever comes in.
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        constexpr float lowest = -std::numeric_limits<float>::infinity();
        const int64_t n = scores_.width, k = ids_.width;
        const float* scores = f32_row(scores_, row);
        int32_t* ids = i32_row(ids_, row);
        float* weights = f32_row(weights_, row);
        auto* left = reinterpret_cast<float*>(scratch.data);  // not chosen yet
        std::copy_n(scores, n, left);
        float highest = lowest;
        for (int64_t e = 0; e < n; ++e) highest = std::max(highest, scores[e]);

        float* exps = left + scores_.row_bytes / 4;
        for (int64_t e = 0; e < n; e += simd::lanes)
            simd::store(exps + e, simd::exp(simd::sub(simd::load(scores + e), simd::set1(highest))));

        constexpr float chosen = std::numeric_limits<float>::quiet_NaN();
        for (int64_t j = 0; j < k; ++j) {
            int64_t best = -1;
            for (int64_t e = 0; e < n; ++e)
                if (left[e] > (best < 0 ? lowest : left[best])) best = e;
            if (best < 0) best = first_unchosen(ids, j);
            left[best] = chosen;
            ids[j] = static_cast<int32_t>(best);
            weights[j] = exps[best];
        }
        const float sum =
            normalize_ ? std::accumulate(weights, weights + k, 0.0f) : std::accumulate(exps, exps + n, 0.0f);
        for (int64_t j = 0; j < k; ++j) weights[j] /= sum;
    }

    static int64_t first_unchosen(const int32_t* ids, int64_t n) {
        int64_t e = 0;
        while (std::find(ids, ids + n, e) != ids + n) ++e;
        return e;
    }

    const Buffer &scores_, &ids_, &weights_;
    bool normalize_;
};

class ExpertSum final : public RowOp {
  public:
    ExpertSum(const Buffer& y, const Buffer& weights, const Buffer* residual, const Buffer& x)
        : RowOp(x, x.width * y.slots_per_token), y_(y), weights_(weights), residual_(residual), x_(x) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const int64_t k = y_.slots_per_token, stride = y_.row_bytes / 4;
        const float *y = f32_row(y_, row * k), *weights = f32_row(weights_, row);
        const float* residual = residual_ ? f32_row(*residual_, row) : nullptr;
        float* x = f32_row(x_, row);
        for (int64_t i = 0; i < x_.width; i += simd::lanes) {
            simd::f32x16 sum = simd::zero();
            for (int64_t j = 0; j < k; ++j)
                sum = simd::fma(simd::set1(weights[j]), simd::load(y + j * stride + i), sum);
            if (residual) sum = simd::add(simd::load(residual + i), sum);
            simd::store(x + i, sum);
        }
    }

    const Buffer &y_, &weights_;
    const Buffer* residual_;
    const Buffer& x_;
};

}  // namespace

std::unique_ptr<Op> make_route(const OpSpec& spec) {
    spec.expect(1, 2, 0);
    const Buffer &scores = spec.input(0), &ids = spec.output(0), &weights = spec.output(1);
    const auto [k, normalize] = RouteParameters(spec);
    expect_kind(spec, scores, Kind::f32);
    expect_kind(spec, ids, Kind::i32);
    expect_kind(spec, weights, Kind::f32);
    expect_some_tokens(spec, scores);
    for (const Buffer* b : {&ids, &weights}) expect_rows(spec, *b, scores.rows);
    if (k < 1 || k > scores.width) spec.fail({"k: found ", k, ", expected 1 to ", scores.width});
    expect_width(spec, ids, k);
    expect_width(spec, weights, k);
    return std::make_unique<Route>(scores, ids, weights, normalize);
}

std::unique_ptr<Op> make_expert_sum(const OpSpec& spec) {
    spec.expect({2, 3}, 1, 0);
    const Buffer &y = spec.input(0), &weights = spec.input(1), &x = spec.output(0);
    const Buffer* residual = spec.inputs.size() > 2 ? spec.inputs[2] : nullptr;
    for (const Buffer* b : {&y, &weights, &x}) expect_kind(spec, *b, Kind::f32);
    expect_some_tokens(spec, x);
    expect_rows(spec, weights, x.rows);
    expect_rows(spec, y, x.rows, weights.width);
    expect_width(spec, y, x.width);
    if (residual) {
        expect_kind(spec, *residual, Kind::f32);
        expect_like(spec, *residual, x);
    }
    return std::make_unique<ExpertSum>(y, weights, residual, x);
}

}  // namespace clarion
