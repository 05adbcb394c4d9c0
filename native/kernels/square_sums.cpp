// square_sums: for each column of x the sum of squares over the batch's rows; with expert ids, over the rows of each
// expert apart, and how many rows those are.
//
// An item is some columns of all rows: a sum runs down the rows in their order, whoever computes it.
#include <algorithm>

#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// 1 KB of a row, and as much of sums that stay in L1 while the rows pass.
constexpr int64_t item_columns = 256;

class SquareSums final : public Op {
  public:
    SquareSums(const Buffer& x, const Buffer* ids, const Buffer& sums, const Buffer& counts)
        : x_(x), ids_(ids), sums_(sums), counts_(counts) {}

    int64_t begin(const Batch& batch) override {
        rows_ = ids_ ? batch.n_tokens * ids_->width : batch.rows(x_);
        return (x_.width + item_columns - 1) / item_columns;
    }

    void run(const Batch&, int64_t item, const Scratch&) override {
        const int64_t first = item * item_columns, last = std::min(first + item_columns, x_.width);
        const int64_t experts = counts_.width, per_row = ids_ ? ids_->width / x_.slots_per_token : 1;
        float *sums = f32_row(sums_, 0), *counts = f32_row(counts_, 0);
        for (int64_t e = 0; e < experts; ++e)
            std::fill(sums + e * x_.width + first, sums + e * x_.width + last, 0.0f);
        if (item == 0) std::fill(counts, counts + experts, 0.0f);
        for (int64_t row = 0; row < rows_; ++row) {
            const int64_t e = expert_of(row);
            const float* x = f32_row(x_, row / per_row);
            float* y = sums + e * x_.width;
            for (int64_t c = first; c < last; c += simd::lanes) {
                const int n = static_cast<int>(std::min<int64_t>(simd::lanes, last - c));
                const simd::f32x16 v = simd::load(x + c);
                simd::store_first(y + c, simd::fma(v, v, simd::load_first(y + c, n)), n);
            }
            if (item == 0) counts[e] += 1.0f;
        }
    }

  private:
    // Whatever a program does to the ids, they name experts that exist.
    int64_t expert_of(int64_t row) const {
        if (!ids_) return 0;
        const auto id = static_cast<uint32_t>(i32_row(*ids_, row / ids_->width)[row % ids_->width]);
        return std::min<int64_t>(id, counts_.width - 1);
    }

    const Buffer& x_;
    const Buffer* ids_;
    const Buffer &sums_, &counts_;
    int64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<Op> make_square_sums(const OpSpec& spec) {
    spec.expect({1, 2}, 2, 0);
    const Buffer &x = spec.input(0), &sums = spec.output(0), &counts = spec.output(1);
    const Buffer* ids = spec.inputs.size() > 1 ? &spec.input(1) : nullptr;
    expect_kind(spec, x, Kind::f32);
    for (const Buffer* b : {&sums, &counts}) {
        expect_kind(spec, *b, Kind::f32);
        expect_rows(spec, *b, Rows::batch);
    }
    if (ids) {
        expect_kind(spec, *ids, Kind::i32);
        expect_rows(spec, *ids, Rows::tokens);
        expect_rows(spec, x, Rows::tokens, x.slots_per_token == 1 ? 1 : ids->width);
    }
    const int64_t experts = SquareSumsParameters(spec).experts;
    if (experts < 1 || (experts > 1 && !ids))
        spec.fail({"experts is ", experts, ids ? "" : " without their ids"});
    expect_width(spec, counts, experts);
    if (sums.width % x.width != 0 || sums.width / x.width != experts)
        spec.fail(
            {"buffer '", sums.name, "' is ", sums.width, " wide, expected ", experts, " times ", x.width});
    return std::make_unique<SquareSums>(x, ids, sums, counts);
}

}  // namespace clarion
