// Elements of heads put elsewhere: some of each head, those of two side by side, each head several times.
#include <cstring>

#include "kernels/rows.h"
#include "operations.h"

namespace clarion {

namespace {

// Of head h of a buffer the n elements from `first` on, a float each; heads lie `apart` elements apart.
struct Part {
    const Buffer* buffer;
    int64_t apart, first, n;

    float* of(int64_t row, int64_t head) const { return f32_row(*buffer, row) + head * apart + first; }
};

// Copies parts of heads, of which the two of a pair are equally long.
class CopyHeads final : public RowOp {
  public:
    struct Copy {
        Part from, to;
    };
    CopyHeads(const Buffer& counted, int64_t elements, int64_t n_head, std::vector<Copy> copies)
        : RowOp(counted, elements), n_head_(n_head), copies_(std::move(copies)) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        for (int64_t h = 0; h < n_head_; ++h)
            for (const auto& [from, to] : copies_)
                std::memcpy(to.of(row, h), from.of(row, h), 4 * static_cast<size_t>(to.n));
    }

    int64_t n_head_;
    std::vector<Copy> copies_;
};

// A result of heads, in float32, with the rows of an input.
void expect_result(const OpSpec& spec, const Buffer& x, int64_t n_head, int64_t head_dim) {
    const Buffer& y = spec.output(0);
    expect_kind(spec, y, Kind::f32);
    expect_rows(spec, y, x.rows, x.slots_per_token);
    expect_heads(spec, y, n_head, head_dim);
}

void expect_input(const OpSpec& spec, const Buffer& x, int64_t n_head, int64_t head_dim) {
    expect_kind(spec, x, Kind::f32);
    expect_heads(spec, x, n_head, head_dim);
}

}  // namespace

std::unique_ptr<Op> make_columns(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const ColumnsParameters p(spec);
    const Buffer &x = spec.input(0), &y = spec.output(0);
    expect_input(spec, x, p.n_head, p.head_dim);
    if (p.first < 0 || p.size < 1 || p.first > p.head_dim - p.size)
        spec.fail({"found ", p.size, " elements from ", p.first, " on, of heads of ", p.head_dim});
    expect_result(spec, x, p.n_head, p.size);
    return std::make_unique<CopyHeads>(
        y, y.width, p.n_head,
        std::vector<CopyHeads::Copy>{{{&x, p.head_dim, p.first, p.size}, {&y, p.size, 0, p.size}}});
}

std::unique_ptr<Op> make_join(const OpSpec& spec) {
    spec.expect(2, 1, 0);
    const JoinParameters p(spec);
    const Buffer &x = spec.input(0), &y = spec.input(1), &z = spec.output(0);
    expect_input(spec, x, p.n_head, p.dim_x);
    expect_input(spec, y, p.n_head, p.dim_y);
    expect_rows(spec, y, x.rows, x.slots_per_token);
    const int64_t both = p.dim_x + p.dim_y;
    expect_result(spec, x, p.n_head, both);
    return std::make_unique<CopyHeads>(
        z, z.width, p.n_head,
        std::vector<CopyHeads::Copy>{{{&x, p.dim_x, 0, p.dim_x}, {&z, both, 0, p.dim_x}},
                                     {{&y, p.dim_y, 0, p.dim_y}, {&z, both, p.dim_x, p.dim_y}}});
}

std::unique_ptr<Op> make_repeat_heads(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const RepeatHeadsParameters p(spec);
    const Buffer &x = spec.input(0), &y = spec.output(0);
    expect_input(spec, x, p.n_head, p.head_dim);
    if (p.times < 1 || p.times > y.width) spec.fail({"times: found ", p.times, ", expected at least 1"});
    expect_result(spec, x, p.n_head * p.times, p.head_dim);
    std::vector<CopyHeads::Copy> copies;
    for (int64_t i = 0; i < p.times; ++i)
        copies.push_back(
            {{&x, p.head_dim, 0, p.head_dim}, {&y, p.times * p.head_dim, i * p.head_dim, p.head_dim}});
    return std::make_unique<CopyHeads>(y, y.width, p.n_head, std::move(copies));
}

}  // namespace clarion
