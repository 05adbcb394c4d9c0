// Mixture of experts: which experts a token goes to, and the sum of what they say.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class Route final : public RowOp {
  public:
    Route(const Buffer& scores, const Buffer& ids, const Buffer& weights, std::vector<float> bias,
          const RouteParameters& p)
        : RowOp(scores, scores.width * ids.width),
          scores_(scores),
          ids_(ids),
          weights_(weights),
          bias_(std::move(bias)),
          p_(p),
          gating_(static_cast<Gating>(p.gating)),
          of_chosen_(gating_ == Gating::softmax_of_chosen || (gating_ == Gating::softmax && p.normalize)),
          some_groups_(p.n_group_used < p.n_group) {}

    size_t scratch_bytes() const override { return 5 * static_cast<size_t>(scores_.row_bytes); }

  private:
    enum class Gating { softmax, sigmoid, sqrt_softplus, softmax_of_chosen };

    // p never falls where a score rises. So without a bias the scores decide, which tell more numbers apart.
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        const int64_t n = scores_.width, k = ids_.width, stride = scores_.row_bytes / 4;
        const float* scores = f32_row(scores_, row);
        int32_t* ids = i32_row(ids_, row);
        float *weights = f32_row(weights_, row), *left = reinterpret_cast<float*>(scratch.data),
              *p = left + stride;
        if (!of_chosen_ || some_groups_ || !bias_.empty()) gate(scores, p);
        std::copy_n(scores, n, left);
        if (!bias_.empty())
            for (int64_t e = 0; e < n; ++e) left[e] = p[e] + bias_[static_cast<size_t>(e)];
        if (some_groups_) leave_groups(bias_.empty() ? p : left, left, p + stride);
        choose(left, n, ids, k);

        // Softmax over the chosen is what softmax over all is once it is normalised.
        for (int64_t j = 0; j < k; ++j) weights[j] = (of_chosen_ ? scores : p)[ids[j]];
        if (of_chosen_)
            softmax(weights, k, weights);
        else if (p_.normalize)
            divide(weights, k, std::accumulate(weights, weights + k, 0.0f));
        const auto scale = static_cast<float>(p_.scale);
        for (int64_t j = 0; j < k; ++j) weights[j] *= scale;
    }

    void gate(const float* scores, float* p) const {
        const int64_t n = scores_.width;
        if (gating_ == Gating::softmax) return softmax(scores, n, p);
        if (gating_ == Gating::softmax_of_chosen) return static_cast<void>(std::copy_n(scores, n, p));
        for (int64_t e = 0; e < n; e += simd::lanes) {
            const simd::f32x16 x = simd::load(scores + e);
            simd::store(p + e, gating_ == Gating::sigmoid ? simd::sigmoid(x) : simd::softplus(x));
        }
        if (gating_ == Gating::sqrt_softplus)
            for (int64_t e = 0; e < n; ++e) p[e] = std::sqrt(p[e]);
    }

    // Rows are padded to whole vectors, and a row may take the place of the other.
    static void softmax(const float* scores, int64_t n, float* p) {
        float highest = lowest;
        for (int64_t e = 0; e < n; ++e) highest = std::max(highest, scores[e]);
        for (int64_t e = 0; e < n; e += simd::lanes)
            simd::store(p + e, simd::exp(simd::sub(simd::load(scores + e), simd::set1(highest))));
        divide(p, n, std::accumulate(p, p + n, 0.0f));
    }

    static void divide(float* x, int64_t n, float by) {
        for (int64_t j = 0; j < n; ++j) x[j] /= by;
    }

    // The indices of the k highest of n numbers, highest first, and the lower index where they are equal. A NaN counts as the
    // lowest, so the indices are distinct and in range whatever comes in. What is chosen becomes a NaN.
    static void choose(float* left, int64_t n, int32_t* chosen, int64_t k) {
        for (int64_t j = 0; j < k; ++j) {
            int64_t best = -1;
            for (int64_t e = 0; e < n; ++e)
                if (left[e] > (best < 0 ? lowest : left[best])) best = e;
            if (best < 0) best = first_unchosen(chosen, j);
            left[best] = std::numeric_limits<float>::quiet_NaN();
            chosen[j] = static_cast<int32_t>(best);
        }
    }

    static int64_t first_unchosen(const int32_t* ids, int64_t n) {
        int64_t e = 0;
        while (std::find(ids, ids + n, e) != ids + n) ++e;
        return e;
    }

    // Makes what is left of the groups that are not used the lowest. Scratch holds three rows: the sums, a group's numbers, and
    // indices.
    void leave_groups(const float* wanted, float* left, float* scratch) const {
        const int64_t stride = scores_.row_bytes / 4, size = scores_.width / p_.n_group;
        float *sums = scratch, *group = sums + stride;
        auto* chosen = reinterpret_cast<int32_t*>(group + stride);
        for (int64_t g = 0; g < p_.n_group; ++g) {
            std::copy_n(wanted + g * size, size, group);
            choose(group, size, chosen, p_.group_top);
            sums[g] = 0.0f;
            for (int64_t j = 0; j < p_.group_top; ++j) sums[g] += wanted[g * size + chosen[j]];
        }
        choose(sums, p_.n_group, chosen, p_.n_group);
        for (int64_t j = p_.n_group_used; j < p_.n_group; ++j)
            std::fill_n(left + chosen[j] * size, size, lowest);
    }

    static constexpr float lowest = -std::numeric_limits<float>::infinity();

    const Buffer &scores_, &ids_, &weights_;
    std::vector<float> bias_;  // empty without one
    RouteParameters p_;
    Gating gating_;
    bool of_chosen_, some_groups_;
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
    spec.expect(1, 2, {0, 1});
    const Buffer &scores = spec.input(0), &ids = spec.output(0), &weights = spec.output(1);
    const RouteParameters p(spec);
    const int64_t n = scores.width;
    expect_kind(spec, scores, Kind::f32);
    expect_kind(spec, ids, Kind::i32);
    expect_kind(spec, weights, Kind::f32);
    expect_some_tokens(spec, scores);
    for (const Buffer* b : {&ids, &weights}) expect_rows(spec, *b, scores.rows);
    const auto expect = [&](const char* name, int64_t found, int64_t least, int64_t most) {
        if (found < least || found > most)
            spec.fail({name, ": found ", found, ", expected ", least, " to ", most});
    };
    expect("k", p.k, 1, n);
    expect_width(spec, ids, p.k);
    expect_width(spec, weights, p.k);
    expect("gating", p.gating, 0, 3);
    expect("n_group", p.n_group, 1, n);
    if (n % p.n_group != 0) spec.fail({"n_group: found ", p.n_group, ", expected a divisor of ", n});
    expect("n_group_used", p.n_group_used, 1, p.n_group);
    expect("group_top", p.group_top, 1, n / p.n_group);
    expect("k", p.k, 1, n / p.n_group * p.n_group_used);
    const Weight* bias = spec.weight(0);
    return std::make_unique<Route>(scores, ids, weights,
                                   bias ? vector_weight(spec, *bias, n) : std::vector<float>(), p);
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
