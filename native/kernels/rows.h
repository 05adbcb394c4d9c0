// Operations that treat rows one by one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "machine/op.h"

namespace clarion {

inline float* f32_row(const Buffer& b, int64_t row) {
    return reinterpret_cast<float*>(b.data + row * b.row_bytes);
}
inline int32_t* i32_row(const Buffer& b, int64_t row) {
    return reinterpret_cast<int32_t*>(b.data + row * b.row_bytes);
}

// Elements of an item. 8192 are 64 KB read and written, a few microseconds of work, ten times what it costs to take an item.
// Where each thread would have less than four such items, they are smaller, down to about what it costs to wake a thread:
// sixteen texts on two threads would be two items, of which one is the smaller. Small batches become one item, which stays on the
// thread that finished the last operation.
inline constexpr int64_t item_elements = 8192, least_item_elements = 2048;

// Whole rows, shared out in items of so many elements.
class RowOp : public Op {
  public:
    int64_t begin(const Batch& batch) final {
        rows_ = batch.rows(counted_);
        const int64_t elements =
            std::clamp(rows_ * elements_ / (4 * batch.threads), least_item_elements, item_elements);
        per_item_ = std::max<int64_t>(1, elements / elements_);
        return (rows_ + per_item_ - 1) / per_item_;
    }
    void run(const Batch& batch, int64_t item, const Scratch& scratch) final {
        const int64_t first = item * per_item_, last = std::min(first + per_item_, rows_);
        for (int64_t row = first; row < last; ++row) run_row(batch, row, scratch);
    }

  protected:
    // As many rows as `counted` has in the batch, of about `elements` elements each.
    RowOp(const Buffer& counted, int64_t elements) : counted_(counted), elements_(elements) {}

  private:
    virtual void run_row(const Batch& batch, int64_t row, const Scratch& scratch) = 0;

    const Buffer& counted_;
    int64_t elements_, per_item_ = 1, rows_ = 0;
};

// Throw std::invalid_argument unless the buffer is as said.
void expect_kind(const OpSpec& spec, const Buffer& b, Kind kind);
// Of floats, encoded or not.
void expect_float(const OpSpec& spec, const Buffer& b);
void expect_width(const OpSpec& spec, const Buffer& b, int64_t width);
void expect_rows(const OpSpec& spec, const Buffer& b, Rows rows, int64_t slots_per_token = 1);
// One row for each token, or for each one that is wanted.
void expect_some_tokens(const OpSpec& spec, const Buffer& b);
// As many rows in every batch, each as wide.
void expect_like(const OpSpec& spec, const Buffer& b, const Buffer& like);
// A row holds n_head heads of head_dim elements.
void expect_heads(const OpSpec& spec, const Buffer& b, int64_t n_head, int64_t head_dim);
// Output i is absent, or lies where b does.
void expect_in_place(const OpSpec& spec, size_t i, const Buffer& b);

}  // namespace clarion
