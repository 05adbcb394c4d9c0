// Rows of slots: those of a token's experts, or of its heads as if they were experts.
#include <algorithm>
#include <cstring>

#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

class Chosen final : public RowOp {
  public:
    Chosen(const Buffer& ids, std::vector<float> v, const Buffer& y)
        : RowOp(ids, ids.width), ids_(ids), y_(y), v_(std::move(v)) {}

  private:
    // A program may compute any ids. One that is too large names the last expert.
    void run_row(const Batch&, int64_t row, const Scratch&) override {
        const int32_t* ids = i32_row(ids_, row);
        float* y = f32_row(y_, row);
        const size_t last = v_.size() - 1;
        for (int64_t j = 0; j < ids_.width; ++j)
            y[j] = v_[std::min<size_t>(static_cast<uint32_t>(ids[j]), last)];
    }

    const Buffer &ids_, &y_;
    std::vector<float> v_;
};

class MulSlots final : public RowOp {
  public:
    MulSlots(const Buffer& x, const Buffer& w, const Buffer& y)
        : RowOp(w, y.width * w.width), x_(x), w_(w), y_(y) {}

  private:
    void run_row(const Batch&, int64_t token, const Scratch&) override {
        const float* w = f32_row(w_, token);
        const int64_t k = w_.width;
        for (int64_t j = 0; j < k; ++j) {
            const float* x = f32_row(x_, x_.slots_per_token == 1 ? token : token * k + j);
            float* y = f32_row(y_, token * k + j);
            for (int64_t i = 0; i < y_.width; i += simd::lanes)
                simd::store(y + i, simd::mul(simd::load(x + i), simd::set1(w[j])));
        }
    }

    const Buffer &x_, &w_, &y_;
};

class HeadsToSlots final : public RowOp {
  public:
    HeadsToSlots(const Buffer& x, const Buffer& y, const Buffer& ids)
        : RowOp(x, x.width), x_(x), y_(y), ids_(ids) {}

  private:
    void run_row(const Batch&, int64_t token, const Scratch&) override {
        const int64_t k = ids_.width, n = y_.width;
        for (int64_t j = 0; j < k; ++j) {
            std::memcpy(f32_row(y_, token * k + j), f32_row(x_, token) + j * n, 4 * static_cast<size_t>(n));
            i32_row(ids_, token)[j] = static_cast<int32_t>(j);
        }
    }

    const Buffer &x_, &y_, &ids_;
};

class SlotsToHeads final : public RowOp {
  public:
    SlotsToHeads(const Buffer& y, const Buffer& x) : RowOp(x, x.width), y_(y), x_(x) {}

  private:
    void run_row(const Batch&, int64_t token, const Scratch&) override {
        const int64_t k = y_.slots_per_token, n = y_.width;
        for (int64_t j = 0; j < k; ++j)
            std::memcpy(f32_row(x_, token) + j * n, f32_row(y_, token * k + j), 4 * static_cast<size_t>(n));
    }

    const Buffer &y_, &x_;
};

// A row for each of k slots of what `of` has a row for.
void expect_slots(const OpSpec& spec, const Buffer& b, const Buffer& of, int64_t k) {
    expect_kind(spec, b, Kind::f32);
    expect_rows(spec, b, of.rows, k);
}

}  // namespace

std::unique_ptr<Op> make_chosen(const OpSpec& spec) {
    spec.expect(1, 1, 1);
    const Buffer &ids = spec.input(0), &y = spec.output(0);
    const Weight& v = *spec.weight(0);
    expect_kind(spec, ids, Kind::i32);
    expect_some_tokens(spec, ids);
    expect_kind(spec, y, Kind::f32);
    expect_like(spec, y, ids);
    return std::make_unique<Chosen>(ids, vector_weight(spec, v, v.rows * v.cols), y);
}

std::unique_ptr<Op> make_mul_slots(const OpSpec& spec) {
    spec.expect(2, 1, 0);
    const Buffer &x = spec.input(0), &w = spec.input(1), &y = spec.output(0);
    expect_kind(spec, w, Kind::f32);
    expect_some_tokens(spec, w);
    expect_slots(spec, x, w, x.slots_per_token == 1 ? 1 : w.width);
    expect_slots(spec, y, w, w.width);
    expect_width(spec, y, x.width);
    return std::make_unique<MulSlots>(x, w, y);
}

std::unique_ptr<Op> make_heads_to_slots(const OpSpec& spec) {
    spec.expect(1, 2, 0);
    const auto [k, n] = HeadsToSlotsParameters(spec);
    const Buffer &x = spec.input(0), &y = spec.output(0), &ids = spec.output(1);
    expect_kind(spec, x, Kind::f32);
    expect_some_tokens(spec, x);
    expect_heads(spec, x, k, n);
    expect_slots(spec, y, x, k);
    expect_width(spec, y, n);
    expect_kind(spec, ids, Kind::i32);
    expect_rows(spec, ids, x.rows);
    expect_width(spec, ids, k);
    return std::make_unique<HeadsToSlots>(x, y, ids);
}

std::unique_ptr<Op> make_slots_to_heads(const OpSpec& spec) {
    spec.expect(2, 1, 0);
    const Buffer &ids = spec.input(0), &y = spec.input(1), &x = spec.output(0);
    const int64_t k = SlotsToHeadsParameters(spec).k;
    expect_kind(spec, ids, Kind::i32);
    expect_some_tokens(spec, ids);
    expect_width(spec, ids, k);
    expect_slots(spec, y, ids, k);
    expect_kind(spec, x, Kind::f32);
    expect_rows(spec, x, ids.rows);
    expect_heads(spec, x, k, y.width);
    return std::make_unique<SlotsToHeads>(y, x);
}

}  // namespace clarion
