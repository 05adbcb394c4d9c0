// embed, embed_positions: a row of a table for each token.  encode: activations ready to be multiplied.
#include "kernels/activations.h"
#include "kernels/row_decoder.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// The rows that `indices`, the tokens or the positions, number.
class Embed final : public RowOp {
  public:
    Embed(const OpSpec& spec, const int32_t* Batch::* indices, const char* what, double scale)
        : RowOp(spec.output(0), spec.output(0).width),
          table_(spec.weight(0)),
          output_(spec.output(0)),
          indices_(indices),
          what_(what),
          scale_(static_cast<float>(scale)) {
        expect_kind(spec, output_, Kind::f32);
        expect_rows(spec, output_, Rows::tokens);
        expect_width(spec, output_, table_->cols);
    }
    void validate(const Batch& batch) const override {
        for (int64_t t = 0; t < batch.n_tokens; ++t)
            if (const int32_t row = (batch.*indices_)[t]; row < 0 || row >= table_->rows)
                refuse({what_, "[", t, "]: found ", row, ", expected 0 to ", table_->rows - 1});
    }

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        float* x = f32_row(output_, row);
        read_row((batch.*indices_)[row], x);
        if (scale_ != 1.0f)
            for (int64_t i = 0; i < table_->cols; ++i) x[i] *= scale_;
    }
    void read_row(int64_t row, float* x) const {
        const Extent extent = table_->extents->holding(0, row);
        const auto row_in_panel = static_cast<int>(row % 16);
        row -= extent.first_row;
        if (extent.panels)
            dequantize_lane(*table_->format, extent.data + (row - row_in_panel) * table_->row_bytes,
                            row_in_panel, table_->cols, x);
        else
            dequantize(*table_->format, extent.data + row * table_->row_bytes, table_->cols, x);
    }

    const Weight* table_;
    const Buffer& output_;
    const int32_t* Batch::* indices_;
    const char* what_;
    float scale_;
};

class Encode final : public RowOp {
  public:
    explicit Encode(const OpSpec& spec)
        : RowOp(spec.input(0), spec.input(0).width), input_(spec.input(0)), output_(spec.output(0)) {
        expect_kind(spec, input_, Kind::f32);
        expect_like(spec, output_, input_);
    }

  private:
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        encode_row(output_.kind, f32_row(input_, row), input_.width, output_.data + row * output_.row_bytes);
    }

    const Buffer &input_, &output_;
};

}  // namespace

std::unique_ptr<Op> make_embed(const OpSpec& spec) {
    spec.expect(0, 1, 1);
    return std::make_unique<Embed>(spec, &Batch::tokens, "tokens", EmbedParameters(spec).scale);
}
std::unique_ptr<Op> make_embed_positions(const OpSpec& spec) {
    spec.expect(0, 1, 1);
    return std::make_unique<Embed>(spec, &Batch::positions, "positions", 1.0);
}
std::unique_ptr<Op> make_encode(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    return std::make_unique<Encode>(spec);
}

}  // namespace clarion
