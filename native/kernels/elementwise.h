// Operations whose every output element depends on the same element of their inputs.
//
// Rows are padded to whole vectors (row_bytes), so loops run over vectors and may compute what nobody reads.
#pragma once

#include <array>
#include <utility>

#include "kernels/activations.h"
#include "kernels/rows.h"
#include "simd/simd.h"

namespace clarion {

// Function: f32x16 of n of them. The result may be encoded, and may take the place of an input.
template <typename Function, size_t n>
class Elementwise final : public RowOp {
  public:
    Elementwise(std::array<const Buffer*, n> inputs, const Buffer& out, Function function)
        : RowOp(out, out.width), inputs_(inputs), out_(out), function_(function) {}

    size_t scratch_bytes() const override {
        return out_.kind == Kind::f32 ? 0 : static_cast<size_t>(row_bytes(Kind::f32, out_.width));
    }

  private:
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        const float* x[n];
        for (size_t i = 0; i < n; ++i) x[i] = f32_row(*inputs_[i], row);
        float* y = out_.kind == Kind::f32 ? f32_row(out_, row) : reinterpret_cast<float*>(scratch.data);
        for (int64_t i = 0; i < out_.width; i += simd::lanes)
            [&]<size_t... k>(std::index_sequence<k...>) {
                simd::store(y + i, function_(simd::load(x[k] + i)...));
            }(std::make_index_sequence<n>{});
        encode_row(out_.kind, y, out_.width, out_.data + row * out_.row_bytes);
    }

    std::array<const Buffer*, n> inputs_;
    const Buffer& out_;
    Function function_;
};

// n inputs in float32, and a result like them, in float32 or, where `may_encode`, encoded.
void expect_elementwise(const OpSpec& spec, size_t n, bool may_encode);

template <size_t n, typename Function>
std::unique_ptr<Op> make_elementwise(const OpSpec& spec, Function function, bool may_encode = false) {
    expect_elementwise(spec, n, may_encode);
    std::array<const Buffer*, n> inputs;
    for (size_t i = 0; i < n; ++i) inputs[i] = &spec.input(i);
    return std::make_unique<Elementwise<Function, n>>(inputs, spec.output(0), function);
}

}  // namespace clarion
