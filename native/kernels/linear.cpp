// linear: y = W a (+ bias) (+ residual), for one or more matrices that share their input.
//
// An item is some panels of one matrix, times a block of tokens.
//
// With few tokens, the time goes into reading the weights, and an item is several panels. While a product multiplies a panel, it
// fetches the next one, which the same thread multiplies next. (When threads took single panels in turns, each fetched what
// another one needed, and they reached half of the bandwidth.)
//
// With many tokens, an item is one panel. A block has so many tokens that their activations stay in L2 while panel after panel
// passes: machine/tiling.cpp says how many.
#include <algorithm>

#include "kernels/lanes.h"
#include "kernels/octets.h"
#include "kernels/product.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

struct Matrix {
    const Weight* weight;
    const Weight* bias;  // a row for each expert's matrix; null without one
    const Buffer* output;
};

// Panel p of one expert's matrix, wherever it lies now, times activations.
void panel_product(const Tiling& tiling, const Matrix& m, int64_t expert, int64_t p,
                   const ActivationRows& rows, int64_t n_tokens, std::byte* scratch, float* sums) {
    const Weight& w = *m.weight;
    const Extent extent = w.extents->holding(expert, 16 * p);
    panel_product(tiling, {*w.format, extent.data, w.rows - extent.first_row, w.cols, extent.panels},
                  16 * p - extent.first_row, rows, n_tokens, scratch, sums);
}

// What is added to panel p of one expert's matrix. It is read where it lies: the biases of many experts would be a large copy.
simd::f32x16 panel_bias(const Weight& bias, int64_t expert, int64_t p) {
    const Extent extent = bias.extents->holding(0, expert);
    const uint8_t* row = extent.data + (expert - extent.first_row) * bias.row_bytes;
    float x[simd::lanes] = {};
    bias.format->dequantize_floats(row + bias.format->row_bytes(16 * p),
                                   std::min<int64_t>(simd::lanes, bias.cols - 16 * p), x);
    return simd::load(x);
}

// Shares out the panels of some matrices into items. The matrices have the same number of columns, and their panels stand one
// after the other, matrix after matrix. n items share all bytes equally: an item gets the panels that begin within its bytes.
class Panels {
  public:
    std::vector<Matrix> matrices;

    // How many items there are of one panel each.
    int64_t single() const {
        int64_t n = 0;
        for (const Matrix& m : matrices) n += panels(m);
        return n;
    }
    // How many items there are of about `size` bytes each. Every thread gets as many items as the others.
    int64_t of_bytes(int64_t size, int64_t threads) const {
        return std::min(single(), threads * (bytes() / (threads * size) + 1));
    }
    // Item i of n: calls body(matrix, first panel, end) for each matrix of which it has panels.
    template <typename Body>
    void each(int64_t i, int64_t n, const Body& body) const {
        const int64_t total = bytes();
        int64_t begin = total * i / n, end = total * (i + 1) / n;  // bytes
        for (const Matrix& m : matrices) {
            const int64_t size = panel_bytes(m), all = panels(m);
            const auto after = [&](int64_t byte) {
                return std::clamp<int64_t>((byte + size - 1) / size, 0, all);
            };
            const int64_t first = after(begin), last = after(end);
            if (first < last) body(m, first, last);
            begin -= all * size;
            end -= all * size;
        }
    }

  private:
    static int64_t panels(const Matrix& m) { return (m.weight->rows + 15) / 16; }
    static int64_t panel_bytes(const Matrix& m) { return 16 * m.weight->row_bytes; }
    int64_t bytes() const {
        int64_t n = 0;
        for (const Matrix& m : matrices) n += panels(m) * panel_bytes(m);
        return n;
    }
};

// The weights are a matrix for each output, then a bias, which may be absent, for each.
std::vector<Matrix> matrices(const OpSpec& spec) {
    const Buffer& input = spec.input(0);
    const size_t n = spec.outputs.size();
    if (n == 0 || spec.weights.size() != 2 * n)
        spec.fail({"needs a matrix and a bias (or none) for each output"});
    std::vector<Matrix> all;
    for (size_t i = 0; i < n; ++i) {
        const Weight *weight = spec.weight(i), *bias = spec.weight(n + i);
        const Buffer& output = spec.output(i);
        if (weight == nullptr || weight->experts != spec.weight(0)->experts)
            spec.fail({"matrix ", i, " is absent, or has other experts than the first one"});
        if (weight->cols != input.width)
            spec.fail({"weight '", weight->name, "' has ", weight->cols, " columns, its input '", input.name,
                       "' is ", input.width, " wide"});
        if (!multiplies(*weight->format, input.kind))
            spec.fail({"weight '", weight->name, "' is ", weight->format->name,
                       ", which does not multiply what '", input.name, "' is encoded as"});
        expect_kind(spec, output, Kind::f32);
        expect_width(spec, output, weight->rows);
        if (bias != nullptr) {
            const bool fits =
                bias->experts == 1 && bias->rows == weight->experts && bias->cols == weight->rows;
            if (bias->format->integer() || !fits)
                spec.fail({"bias '", bias->name, "' is ", bias->format->name, " [", bias->rows, ", ",
                           bias->cols, "], expected floats [", weight->experts, ", ", weight->rows, "]"});
        }
        all.push_back({weight, bias, &output});
    }
    return all;
}

class Linear final : public Op {
  public:
    explicit Linear(const OpSpec& spec)
        : input_(&spec.input(0)), panels_{matrices(spec)}, tiling_(spec.tiling), threads_(spec.threads) {
        residual_ = spec.inputs.size() > 1 ? spec.inputs[1] : nullptr;
        const Matrix& first = panels_.matrices[0];
        if (first.weight->experts != 1)
            spec.fail(
                {"weight '", first.weight->name, "' has ", first.weight->experts, " matrices, expected 1"});
        if (residual_ != nullptr && (panels_.matrices.size() != 1 || residual_->kind != Kind::f32 ||
                                     residual_->width != first.output->width))
            spec.fail({"a residual needs one output of its own width"});
        octets_.reserve(input_->kind, input_->width, spec.max_tokens * input_->slots_per_token,
                        spec.max_tokens * input_->slots_per_token / tiling_.least_tokens + 1);
    }

    size_t scratch_bytes() const override { return product_scratch_bytes(); }

    int64_t begin(const Batch& batch) override {
        n_tokens_ = batch.rows(*input_);
        if (n_tokens_ == 0) return 0;
        // Every block but the last one holds whole tiles, of 4, 8 or 12 tokens.
        constexpr int64_t whole = 24;
        const int64_t most = std::clamp(tiling_.activation_bytes / input_->row_bytes, tiling_.least_tokens,
                                        most_tokens - whole);
        const int64_t blocks = (n_tokens_ + most - 1) / most;
        block_ = blocks == 1 ? n_tokens_ : ((n_tokens_ + blocks - 1) / blocks + whole - 1) / whole * whole;
        items_per_block_ = n_tokens_ <= tiling_.few_tokens ? panels_.of_bytes(tiling_.item_bytes, threads_)
                                                           : panels_.single();
        octets_.clear();
        for (int64_t t = 0; t < n_tokens_; t += block_) octets_.add(rows(t), std::min(block_, n_tokens_ - t));
        return (n_tokens_ + block_ - 1) / block_ * items_per_block_;
    }

    void run(const Batch&, int64_t item, const Scratch& scratch) override {
        const int64_t first_token = item / items_per_block_ * block_;
        const int64_t n_tokens = std::min(block_, n_tokens_ - first_token);
        const OctetList octets = octets_[item / items_per_block_];
        ActivationRows rows = this->rows(first_token);
        rows.octets = &octets;
        float* sums = product_sums(scratch.data);
        panels_.each(item % items_per_block_, items_per_block_,
                     [&](const Matrix& m, int64_t first, int64_t last) {
                         for (int64_t p = first; p < last; ++p) {
                             // Fetches the lines that the sums are stored to: the first store to a line would wait for it.
                             for (int64_t t = 0; t < n_tokens; ++t)
                                 simd::prefetch(row_of(*m.output, first_token + t) + 16 * p);
                             panel_product(tiling_, m, 0, p, rows, n_tokens, scratch.data, sums);
                             store(m, 16 * p, first_token, n_tokens, sums);
                         }
                     });
    }

  private:
    void store(const Matrix& m, int64_t row, int64_t first_token, int64_t n_tokens, const float* sums) const {
        const int64_t n = m.weight->rows - row;
        const simd::f32x16 bias = m.bias ? panel_bias(*m.bias, 0, row / 16) : simd::zero();
        for (int64_t t = 0; t < n_tokens; ++t) {
            simd::f32x16 y = simd::load(sums + 16 * t);
            if (m.bias != nullptr) y = simd::add(y, bias);
            if (residual_ != nullptr) y = simd::add(load_n(row_of(*residual_, first_token + t) + row, n), y);
            store_n(row_of(*m.output, first_token + t) + row, y, n);
        }
    }

    ActivationRows rows(int64_t first_token) const {
        return {input_->kind, input_->data + first_token * input_->row_bytes, input_->row_bytes};
    }
    static float* row_of(const Buffer& b, int64_t t) {
        return reinterpret_cast<float*>(b.data + t * b.row_bytes);
    }

    const Buffer *input_, *residual_;
    Panels panels_;
    Tiling tiling_;
    OctetLists octets_;  // a list for each block of tokens
    int64_t threads_;
    int64_t n_tokens_ = 0, block_ = 0, items_per_block_ = 0;
};

// expert_linear: row s of the outputs is W[ids[s]] a (+ bias[ids[s]]). Slot s counts the experts of token 0, then those of token 1, and so on.
// a is row s of the input, or row s / k where the input has one row for each token. The slots are sorted by expert, so that
// the weights of an expert are read once for all slots that use it.
class ExpertLinear final : public Op {
  public:
    explicit ExpertLinear(const OpSpec& spec)
        : input_(&spec.input(0)), ids_(&spec.input(1)), panels_{matrices(spec)}, tiling_(spec.tiling) {
        expect_kind(spec, *ids_, Kind::i32);
        expect_some_tokens(spec, *ids_);
        for (const Matrix& m : panels_.matrices) expect_rows(spec, *m.output, ids_->rows, ids_->width);
        expect_rows(spec, *input_, ids_->rows, input_->slots_per_token == 1 ? 1 : ids_->width);
        divisor_ = static_cast<int32_t>(ids_->width / input_->slots_per_token);
        n_experts_ = panels_.matrices[0].weight->experts;
        slots_.resize(static_cast<size_t>(spec.max_tokens * ids_->width));
        first_.resize(static_cast<size_t>(n_experts_ + 1));
        active_.resize(static_cast<size_t>(n_experts_));
        const int64_t n_slots = spec.max_tokens * ids_->width;
        octets_.reserve(input_->kind, input_->width, n_slots,
                        std::min(n_experts_, n_slots) + n_slots / most_tokens);
        first_list_.resize(static_cast<size_t>(n_experts_));
    }

    size_t scratch_bytes() const override { return product_scratch_bytes(); }

    int64_t begin(const Batch& batch) override {
        const int64_t n_rows = batch.rows(*ids_), k = ids_->width;
        std::fill(first_.begin(), first_.end(), 0);
        for (int64_t t = 0; t < n_rows; ++t)
            for (int64_t j = 0; j < k; ++j) ++first_[expert_of(t, j) + 1];
        n_active_ = 0;
        for (int64_t e = 0; e < n_experts_; ++e) {
            const auto i = static_cast<size_t>(e);
            if (first_[i + 1] > 0) active_[static_cast<size_t>(n_active_++)] = static_cast<int32_t>(e);
            first_[i + 1] += first_[i];
        }
        // Counting sort. It fills slots_ from the back and counts down in first_, so it needs no second array of cursors.
        std::vector<int32_t>& end = first_;
        for (int64_t t = n_rows - 1; t >= 0; --t)
            for (int64_t j = k - 1; j >= 0; --j)
                slots_[static_cast<size_t>(--end[expert_of(t, j) + 1])] = static_cast<int32_t>(t * k + j);
        // Now the slots of expert e begin at first_[e + 1]. They end where those of the next active expert begin.
        n_slots_ = n_rows * k;
        list_octets();
        items_per_expert_ = n_slots_ <= n_active_ * tiling_.few_tokens
                                ? panels_.of_bytes(tiling_.item_bytes, 1)
                                : panels_.single();
        return n_active_ * items_per_expert_;
    }

    void run(const Batch&, int64_t item, const Scratch& scratch) override {
        const int64_t a = item / items_per_expert_;
        const int64_t expert = active_[static_cast<size_t>(a)];
        const int64_t begin = begin_of(a), end = begin_of(a + 1);
        const int64_t list = first_list_[static_cast<size_t>(a)];
        panels_.each(item % items_per_expert_, items_per_expert_,
                     [&](const Matrix& m, int64_t first, int64_t last) {
                         for (int64_t p = first; p < last; ++p)
                             multiply(m, expert, p, begin, end, list, scratch);
                     });
    }

  private:
    ActivationRows rows_of(const int32_t* slots) const {
        return {input_->kind, input_->data, input_->row_bytes, slots, divisor_};
    }
    // Where the slots of active expert a begin.
    int64_t begin_of(int64_t a) const {
        return a < n_active_ ? first_[static_cast<size_t>(active_[static_cast<size_t>(a)] + 1)] : n_slots_;
    }
    void list_octets() {
        octets_.clear();
        int64_t list = 0;
        for (int64_t a = 0; a < n_active_; ++a) {
            first_list_[static_cast<size_t>(a)] = list;
            for (int64_t s = begin_of(a), end = begin_of(a + 1); s < end; s += most_tokens, ++list)
                octets_.add(rows_of(slots_.data() + s), std::min(most_tokens, end - s));
        }
    }
    // Panel p of one expert's matrix, times the slots from begin to end in the order of slots_.
    void multiply(const Matrix& m, int64_t expert, int64_t p, int64_t begin, int64_t end, int64_t list,
                  const Scratch& scratch) const {
        const simd::f32x16 bias = m.bias ? panel_bias(*m.bias, expert, p) : simd::zero();
        float* sums = product_sums(scratch.data);
        for (int64_t s = begin; s < end; s += most_tokens) {
            const int64_t n = std::min(most_tokens, end - s);
            const int32_t* slots = slots_.data() + s;
            const OctetList octets = octets_[list++];
            ActivationRows rows = rows_of(slots);
            rows.octets = &octets;
            for (int64_t t = 0; t < n; ++t)
                simd::prefetch(f32_row(*m.output, slots[t]) + 16 * p);  // as in `linear`
            panel_product(tiling_, m, expert, p, rows, n, scratch.data, sums);
            for (int64_t t = 0; t < n; ++t) {
                simd::f32x16 sum = simd::load(sums + 16 * t);
                if (m.bias != nullptr) sum = simd::add(sum, bias);
                store_n(f32_row(*m.output, slots[t]) + 16 * p, sum, m.weight->rows - 16 * p);
            }
        }
    }

    // A program may compute any ids. An id that is too large names the last expert, so that no access is out of bounds.
    size_t expert_of(int64_t row, int64_t j) const {
        return std::min<size_t>(static_cast<uint32_t>(i32_row(*ids_, row)[j]),
                                static_cast<size_t>(n_experts_ - 1));
    }
    const Buffer *input_, *ids_;
    Panels panels_;
    Tiling tiling_;
    int32_t divisor_;  // how many slots share a row of the input
    int64_t n_experts_ = 0, n_active_ = 0, n_slots_ = 0, items_per_expert_ = 0;
    std::vector<int32_t> slots_, first_, active_;
    OctetLists octets_;                // a list for each expert, or several where it has many slots
    std::vector<int64_t> first_list_;  // of each active expert
};

}  // namespace

std::unique_ptr<Op> make_linear(const OpSpec& spec) { return std::make_unique<Linear>(spec); }
std::unique_ptr<Op> make_expert_linear(const OpSpec& spec) { return std::make_unique<ExpertLinear>(spec); }

}  // namespace clarion
