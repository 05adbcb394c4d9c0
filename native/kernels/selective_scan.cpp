// selective_scan: h ← exp(dt a) h + dt x b;  y = h c + d x, for each column apart  (Gu and Dao 2023).
//
// A state is [panel of 16 columns][d_state][16], so the sum over d_state runs down a panel. Tiles are of some panels, so that a
// token's rows are read in pieces of whole cache lines.
//
// What bounds it is e^x, one for each number of the state and each token: 10 products and 2 conversions for a vector of 16,
// beside the 4 products of the scan; 2 loads, 1 store and the broadcasts of b and c are nothing beside that. With one 512-bit
// multiplier: 14 cycles.
#include "kernels/panels.h"
#include "kernels/recurrence.h"
#include "kernels/rms_norm.h"
#include "machine/checked.h"
#include "operations.h"

namespace clarion {

namespace {

class SelectiveScan final : public RecurrentOp {
  public:
    SelectiveScan(const OpSpec& spec, int64_t state, int64_t n, int64_t d_state, const std::vector<float>& a,
                  std::vector<float> d)
        : RecurrentOp(spec, state, n * d_state, {&spec.input(0), &spec.input(1), &spec.input(2)},
                      d_state * std::min(n, tile_columns), 1),
          n_(n),
          d_state_(d_state),
          c_(spec.input(3)),
          y_(spec.output(0)),
          a_(static_cast<size_t>((n + 15) / 16 * 16 * d_state)),
          d_(std::move(d)) {
        for (int64_t column = 0; column < n; ++column)
            for (int64_t s = 0; s < d_state; ++s)
                a_[static_cast<size_t>((column / 16 * d_state + s) * 16 + column % 16)] =
                    a[static_cast<size_t>(column * d_state + s)];
        for (int64_t first = 0; first < n; first += tile_columns)
            tiles_.push_back({first * d_state, std::min(tile_columns, n - first) * d_state});
    }
    size_t scratch_bytes() const override {
        return static_cast<size_t>(tile_columns * d_state_) * sizeof(float);
    }

  private:
    static constexpr int64_t tile_columns = 128;  // 8 KB where d_state is 16
    enum Logged { x, dt, b };

    void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch& scratch) const override {
        const PanelTile panels{d_state_, i * tile_columns, std::min(tile_columns, n_ - i * tile_columns)};
        auto* room = reinterpret_cast<float*>(scratch.data);
        const Tile& tile = tiles_[static_cast<size_t>(i)];
        const int64_t fetch = tokens.fetch(tile);
        apply(tokens, span, tile, [&](float* s, int64_t p) {
            const bool again = tokens.again(p);
            const float* b_row = row(tokens, b, p);
            const float* c_row = again ? b_row : batch_row(tokens, c_, p);
            const float* x_row = row(tokens, x, p) + panels.first;
            const float* dt_row = row(tokens, dt, p) + panels.first;
            if (const int64_t later = p + tokens_ahead; !again && later < tokens.end()) {
                prefetch_row(row(tokens, x, later) + panels.first, panels.columns);
                prefetch_row(row(tokens, dt, later) + panels.first, panels.columns);
                prefetch_row(batch_row(tokens, y_, later) + panels.first, panels.columns);
            }
            float* y_row = again ? nullptr : batch_row(tokens, y_, p) + panels.first;
            panels.with_panels(s, room, [&](float* h) {
                for (int64_t c = 0; c < panels.columns; c += simd::lanes) {
                    const int64_t left = panels.columns - c;
                    const simd::f32x16 xs = load_n(x_row + c, left);
                    const simd::f32x16 y = run_panel(h + c * d_state_, panels.first + c, xs,
                                                     load_n(dt_row + c, left), b_row, c_row, fetch);
                    const simd::f32x16 d = load_n(d_.data() + panels.first + c, left);
                    if (y_row) store_n(y_row + c, simd::fma(d, xs, y), left);
                }
            });
        });
    }

    simd::f32x16 run_panel(float* h, int64_t column, simd::f32x16 x, simd::f32x16 dt, const float* b_row,
                           const float* c_row, int64_t fetch) const {
        const float* a = a_.data() + column * d_state_;
        const simd::f32x16 change = simd::mul(dt, x);
        simd::f32x16 y = simd::zero();
        for (int64_t s = 0, n = d_state_; s < n; ++s, h += simd::lanes, a += simd::lanes) {
            simd::prefetch(h + fetch);
            const simd::f32x16 factor = decay(simd::mul(dt, simd::load(a)));
            const simd::f32x16 to = simd::fma(factor, simd::load(h), simd::mul(change, simd::set1(b_row[s])));
            simd::store(h, to);
            y = simd::fma(simd::set1(c_row[s]), to, y);
        }
        return y;
    }

    // e^x. Of a decay x is below 0; above 88.7 the result is infinity, and NaN stays NaN.
    static simd::f32x16 decay(simd::f32x16 x) { return simd::exp_to_one(simd::min(simd::set1(89.0f), x)); }

    int64_t n_, d_state_;
    const Buffer &c_, &y_;
    std::vector<float> a_;  // [panel][d_state][16]
    std::vector<float> d_;  // [n]
};

}  // namespace

std::unique_ptr<Op> make_selective_scan(const OpSpec& spec) {
    const SelectiveScanParameters p(spec);
    spec.expect(4, 1, 2);
    for (const Buffer* buffer : spec.inputs) expect_kind(spec, *buffer, Kind::f32);
    for (const Buffer* buffer : spec.inputs) expect_rows(spec, *buffer, Rows::tokens);
    const int64_t n = spec.input(0).width, d_state = spec.input(2).width;
    expect_width(spec, spec.input(1), n);
    expect_width(spec, spec.input(3), d_state);
    expect_kind(spec, spec.output(0), Kind::f32);
    expect_like(spec, spec.output(0), spec.input(0));
    const int64_t size = checked_product({n, d_state}, {"state of a scan"});
    return std::make_unique<SelectiveScan>(spec, p.state, n, d_state,
                                           vector_weight(spec, *spec.weight(0), size),
                                           vector_weight(spec, *spec.weight(1), n));
}

}  // namespace clarion
