// The rows of the tokens whose logits are wanted.
#include <cstring>

#include "kernels/rows.h"
#include "operations.h"

namespace clarion {

namespace {

class Select final : public RowOp {
  public:
    Select(const Buffer& x, const Buffer& y) : RowOp(y, x.width), x_(x), y_(y) {}

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        std::memcpy(y_.data + row * y_.row_bytes, x_.data + batch.outputs[row] * x_.row_bytes,
                    static_cast<size_t>(x_.row_bytes));
    }

    const Buffer &x_, &y_;
};

}  // namespace

std::unique_ptr<Op> make_select(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const Buffer &x = spec.input(0), &y = spec.output(0);
    expect_rows(spec, x, Rows::tokens);
    expect_rows(spec, y, Rows::outputs);
    expect_kind(spec, y, x.kind);
    expect_width(spec, y, x.width);
    return std::make_unique<Select>(x, y);
}

}  // namespace clarion
