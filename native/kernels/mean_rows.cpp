// mean_rows: for each wanted output the mean of the rows of its sequence.
//
// An item is some columns of one output: a sum runs down the rows in their order, in double, whoever computes it.
#include <algorithm>

#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// 1 KB of a row, and 2 KB of sums that stay in L1 while the rows pass.
constexpr int64_t item_columns = 256;

class MeanRows final : public Op {
  public:
    MeanRows(const Buffer& x, const Buffer& y)
        : x_(x), y_(y), items_per_row_((x.width + item_columns - 1) / item_columns) {}

    int64_t begin(const Batch& batch) override { return batch.n_outputs * items_per_row_; }

    void run(const Batch& batch, int64_t item, const Scratch&) override {
        const int64_t output = item / items_per_row_, first = item % items_per_row_ * item_columns;
        const int64_t columns = std::min(item_columns, x_.width - first);
        const int32_t sequence = batch.sequences[batch.outputs[output]];
        double sums[item_columns] = {};
        int64_t n = 0;
        for (int64_t t = 0; t < batch.n_tokens; ++t) {
            if (batch.sequences[t] != sequence) continue;
            const float* x = f32_row(x_, t) + first;
            for (int64_t c = 0; c < columns; c += simd::lanes)  // rows are padded to whole vectors
                for (int64_t i = c; i < c + simd::lanes; ++i) sums[i] += static_cast<double>(x[i]);
            ++n;
        }
        float* y = f32_row(y_, output) + first;
        for (int64_t c = 0; c < columns; ++c) y[c] = static_cast<float>(sums[c] / static_cast<double>(n));
    }

  private:
    const Buffer &x_, &y_;
    int64_t items_per_row_;
};

}  // namespace

std::unique_ptr<Op> make_mean_rows(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const Buffer &x = spec.input(0), &y = spec.output(0);
    for (const Buffer* b : {&x, &y}) expect_kind(spec, *b, Kind::f32);
    expect_rows(spec, x, Rows::tokens);
    expect_rows(spec, y, Rows::outputs);
    expect_width(spec, y, x.width);
    return std::make_unique<MeanRows>(x, y);
}

}  // namespace clarion
