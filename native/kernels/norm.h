// Norms of whole rows.
#pragma once

#include <utility>
#include <vector>

#include "kernels/activations.h"
#include "kernels/rows.h"

namespace clarion {

// The results of a norm: one or two buffers like x, in float32 or encoded.
std::vector<const Buffer*> expect_norm(const OpSpec& spec);

// norm.apply(x, y) writes a row of float32; each result holds it in its kind.
template <typename Norm>
class NormRows final : public RowOp {
  public:
    NormRows(const OpSpec& spec, Norm norm)
        : RowOp(spec.input(0), spec.input(0).width),
          x_(spec.input(0)),
          outputs_(expect_norm(spec)),
          norm_(std::move(norm)) {}

    size_t scratch_bytes() const override { return static_cast<size_t>(row_bytes(Kind::f32, x_.width)); }

  private:
    void run_row(const Batch&, int64_t row, const Scratch& scratch) override {
        auto* y = reinterpret_cast<float*>(scratch.data);
        norm_.apply(f32_row(x_, row), y);
        for (const Buffer* out : outputs_)
            encode_row(out->kind, y, x_.width, out->data + row * out->row_bytes);
    }

    const Buffer& x_;
    std::vector<const Buffer*> outputs_;
    Norm norm_;
};

}  // namespace clarion
