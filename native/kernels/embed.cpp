// embed, embed_positions: a row of a table for each token.  encode: activations ready to be multiplied.
#include <algorithm>
#include <stdexcept>

#include "kernels/activations.h"
#include "kernels/row_decoder.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

constexpr int64_t rows_per_item = 8;

int64_t items(int64_t rows) { return (rows + rows_per_item - 1) / rows_per_item; }

// The rows that `indices`, the tokens or the positions, number.
class Embed final : public Op {
  public:
    Embed(const OpSpec& spec, const int32_t* Batch::* indices, const char* what, double scale)
        : indices_(indices), what_(what), scale_(static_cast<float>(scale)) {
        spec.expect(0, 1, 1);
        table_ = spec.weight(0);
        output_ = &spec.output(0);
        expect_kind(spec, *output_, Kind::f32);
        expect_rows(spec, *output_, Rows::tokens);
        expect_width(spec, *output_, table_->cols);
    }
    void validate(const Batch& batch) const override {
        for (int64_t t = 0; t < batch.n_tokens; ++t)
            if (const int32_t row = (batch.*indices_)[t]; row < 0 || row >= table_->rows)
                refuse({what_, "[", t, "]: found ", row, ", expected 0 to ", table_->rows - 1});
    }
    int64_t begin(const Batch& batch) override { return items(batch.n_tokens); }
    void run(const Batch& batch, int64_t item, const Scratch&) override {
        const int64_t end = std::min(batch.n_tokens, (item + 1) * rows_per_item);
        for (int64_t t = item * rows_per_item; t < end; ++t) {
            auto* x = reinterpret_cast<float*>(output_->data + t * output_->row_bytes);
            read_row((batch.*indices_)[t], x);
            if (scale_ != 1.0f)
                for (int64_t i = 0; i < table_->cols; ++i) x[i] *= scale_;
        }
    }

  private:
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
    const Buffer* output_;
    const int32_t* Batch::* indices_;
    const char* what_;
    float scale_;
};

class Encode final : public Op {
  public:
    explicit Encode(const OpSpec& spec) : input_(spec.inputs.at(0)), output_(spec.outputs.at(0)) {
        if (input_ == nullptr || output_ == nullptr || input_->kind != Kind::f32 ||
            input_->width != output_->width || input_->rows != output_->rows ||
            input_->slots_per_token != output_->slots_per_token)
            throw std::invalid_argument("encode: needs an f32 input and an output of the same shape");
    }
    int64_t begin(const Batch& batch) override { return items(batch.rows(*input_)); }
    void run(const Batch& batch, int64_t item, const Scratch&) override {
        const int64_t end = std::min(batch.rows(*input_), (item + 1) * rows_per_item);
        for (int64_t t = item * rows_per_item; t < end; ++t)
            encode_row(output_->kind, reinterpret_cast<const float*>(input_->data + t * input_->row_bytes),
                       input_->width, output_->data + t * output_->row_bytes);
    }

  private:
    const Buffer *input_, *output_;
};

}  // namespace

std::unique_ptr<Op> make_embed(const OpSpec& spec) {
    return std::make_unique<Embed>(spec, &Batch::tokens, "tokens", EmbedParameters(spec).scale);
}
std::unique_ptr<Op> make_embed_positions(const OpSpec& spec) {
    return std::make_unique<Embed>(spec, &Batch::positions, "positions", 1.0);
}
std::unique_ptr<Op> make_encode(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    return std::make_unique<Encode>(spec);
}

}  // namespace clarion
