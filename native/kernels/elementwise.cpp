// Operations whose every output element depends on the same element of their inputs.
//
// Rows are padded to whole vectors (row_bytes), so loops run over vectors and may compute what nobody reads.
#include "kernels/activations.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class Silu final : public RowOp {
  public:
    Silu(const Buffer& x, const Buffer& y) : RowOp(x, x.width), x_(x), y_(y) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const float* x = f32_row(x_, row);
        float* y = f32_row(y_, row);
        for (int64_t i = 0; i < x_.width; i += simd::lanes) simd::store(y + i, simd::silu(simd::load(x + i)));
    }

    const Buffer &x_, &y_;
};

template <simd::f32x16 (*combine)(simd::f32x16, simd::f32x16)>
class Binary final : public RowOp {
  public:
    Binary(const Buffer& x, const Buffer& y, const Buffer& z) : RowOp(x, x.width), x_(x), y_(y), z_(z) {}

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const float *x = f32_row(x_, row), *y = f32_row(y_, row);
        float* z = f32_row(z_, row);
        for (int64_t i = 0; i < x_.width; i += simd::lanes)
            simd::store(z + i, combine(simd::load(x + i), simd::load(y + i)));
    }

    const Buffer &x_, &y_, &z_;
};

class Swiglu final : public RowOp {
  public:
    Swiglu(const Buffer& g, const Buffer& u, const Buffer& out)
        : RowOp(g, g.width), g_(g), u_(u), out_(out) {}

    size_t scratch_bytes() const override { return static_cast<size_t>(row_bytes(Kind::f32, g_.width)); }

  private:
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        const float *g = f32_row(g_, row), *u = f32_row(u_, row);
        float* y = out_.kind == Kind::f32 ? f32_row(out_, row) : reinterpret_cast<float*>(scratch.data);
        for (int64_t i = 0; i < g_.width; i += simd::lanes)
            simd::store(y + i, simd::mul(simd::silu(simd::load(g + i)), simd::load(u + i)));
        encode_row(out_.kind, y, g_.width, out_.data + row * out_.row_bytes);
    }

    const Buffer &g_, &u_, &out_;
};

void expect_binary(const OpSpec& spec) {
    spec.expect(2, 1, 0);
    for (const Buffer* b : {&spec.input(0), &spec.input(1)}) {
        expect_kind(spec, *b, Kind::f32);
        expect_like(spec, *b, spec.output(0));
    }
}

template <simd::f32x16 (*combine)(simd::f32x16, simd::f32x16)>
std::unique_ptr<Op> make_binary(const OpSpec& spec) {
    expect_binary(spec);
    expect_kind(spec, spec.output(0), Kind::f32);
    return std::make_unique<Binary<combine>>(spec.input(0), spec.input(1), spec.output(0));
}

}  // namespace

std::unique_ptr<Op> make_silu(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    expect_kind(spec, spec.input(0), Kind::f32);
    expect_kind(spec, spec.output(0), Kind::f32);
    expect_like(spec, spec.output(0), spec.input(0));
    return std::make_unique<Silu>(spec.input(0), spec.output(0));
}

std::unique_ptr<Op> make_mul(const OpSpec& spec) { return make_binary<simd::mul>(spec); }
std::unique_ptr<Op> make_add(const OpSpec& spec) { return make_binary<simd::add>(spec); }

std::unique_ptr<Op> make_swiglu(const OpSpec& spec) {
    expect_binary(spec);
    if (spec.output(0).kind == Kind::i32) spec.fail({"buffer '", spec.output(0).name, "' is i32"});
    return std::make_unique<Swiglu>(spec.input(0), spec.input(1), spec.output(0));
}

}  // namespace clarion
