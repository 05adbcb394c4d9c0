// state_space_scan: h ← exp(dt a) h + dt x bᵀ;  y = h c + d x  (Dao and Gu 2024).
//
// A state is [head][panel of 16 rows of h][d_state][16]: transposed, so that the sum over d_state runs down a panel. It is the
// delta rule's update with a change that is known beforehand (kernels/panels.h).
//
// What bounds it, for each vector of 16 numbers and each token: 3 products; 1 load, and half a broadcast of b and of c each; 1
// store. On a core with one 512-bit multiplier and half a store a cycle these are 3 cycles of products and 2 of the rest.
#include "kernels/panels.h"
#include "kernels/recurrence.h"
#include "kernels/rms_norm.h"
#include "machine/checked.h"
#include "operations.h"

namespace clarion {

namespace {

class StateSpaceScan final : public RecurrentOp {
  public:
    StateSpaceScan(const OpSpec& spec, const StateSpaceScanParameters& p, std::vector<float> a,
                   std::vector<float> d)
        : RecurrentOp(spec, p.state, p.n_head * p.head_dim * p.d_state,
                      {&spec.input(0), &spec.input(1), &spec.input(2)},
                      p.d_state * std::min(p.head_dim, tile_columns),
                      tiles_alike(p.head_dim, p.n_head / p.n_group)),
          p_(p),
          c_(spec.input(3)),
          y_(spec.output(0)),
          a_(std::move(a)),
          d_(std::move(d)) {
        for (int64_t head = 0; head < p.n_head; ++head)
            for (int64_t first = 0; first < p.head_dim; first += tile_columns) {
                const PanelTile panels{p.d_state, first, std::min(tile_columns, p.head_dim - first)};
                tiles_.push_back({(head * p.head_dim + first) * p.d_state, panels.size()});
                places_.push_back({head, panels});
            }
    }
    size_t scratch_bytes() const override {
        return static_cast<size_t>(tile_columns * p_.d_state) * sizeof(float);
    }

  private:
    enum Logged { x, dt, b };
    struct Place {
        int64_t head;
        PanelTile panels;
    };

    void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch& scratch) const override {
        const auto [head, panels] = places_[static_cast<size_t>(i)];
        const int64_t group = head / (p_.n_head / p_.n_group) * p_.d_state;
        const simd::f32x16 d = simd::set1(d_[static_cast<size_t>(head)]);
        auto* room = reinterpret_cast<float*>(scratch.data);
        alignas(64) float factors[span_tokens], change[tile_columns], o[tile_columns];
        const float a = a_[static_cast<size_t>(head)];
        decay_factors(span, [&](int64_t p) { return row(tokens, dt, p)[head] * a; }, factors);
        const Tile& tile = tiles_[static_cast<size_t>(i)];
        const int64_t fetch = tokens.fetch(tile);
        apply(tokens, span, tile, [&](float* s, int64_t p) {
            const bool again = tokens.again(p);
            if (const int64_t later = p + tokens_ahead; !again && later < tokens.end()) {
                prefetch_row(row(tokens, b, later) + group, p_.d_state);
                prefetch_row(batch_row(tokens, c_, later) + group, p_.d_state);
                prefetch_row(row(tokens, x, later) + head * p_.head_dim + panels.first, panels.columns);
                prefetch_row(batch_row(tokens, y_, later) + head * p_.head_dim + panels.first,
                             panels.columns);
            }
            const float step = row(tokens, dt, p)[head];
            const float* x_row = row(tokens, x, p) + head * p_.head_dim + panels.first;
            const float* b_row = row(tokens, b, p) + group;
            for (int64_t c = 0; c < panels.columns; c += simd::lanes)
                simd::store(change + c, simd::mul(simd::set1(step), load_n(x_row + c, panels.columns - c)));
            const float* c_row = again ? b_row : batch_row(tokens, c_, p) + group;
            const Rank1 token{p_.d_state, factors + (p - span.first), b_row, c_row, nullptr};
            panels.with_panels(s, room, [&](float* at) {
                if (fetch)
                    update_panels<false, false, true>(at, panels.panels(), token, change, o, nullptr, fetch);
                else
                    update_panels<false, false, false>(at, panels.panels(), token, change, o, nullptr, 0);
            });
            if (again) return;
            float* out = batch_row(tokens, y_, p) + head * p_.head_dim + panels.first;
            for (int64_t c = 0; c < panels.columns; c += simd::lanes)
                store_n(out + c, simd::fma(d, load_n(x_row + c, panels.columns - c), simd::load(o + c)),
                        panels.columns - c);
        });
    }

    const StateSpaceScanParameters p_;
    const Buffer &c_, &y_;
    std::vector<float> a_, d_;   // [n_head]
    std::vector<Place> places_;  // of the tiles
};

}  // namespace

std::unique_ptr<Op> make_state_space_scan(const OpSpec& spec) {
    const StateSpaceScanParameters p(spec);
    spec.expect(4, 1, 2);
    for (const Buffer* buffer : spec.inputs) expect_kind(spec, *buffer, Kind::f32);
    for (const Buffer* buffer : spec.inputs) expect_rows(spec, *buffer, Rows::tokens);
    expect_heads(spec, spec.input(0), p.n_head, p.head_dim);
    expect_width(spec, spec.input(1), p.n_head);
    expect_heads(spec, spec.input(2), p.n_group, p.d_state);
    expect_heads(spec, spec.input(3), p.n_group, p.d_state);
    if (p.n_head % p.n_group != 0)
        spec.fail({p.n_head, " heads share ", p.n_group, " groups, expected a divisor"});
    expect_kind(spec, spec.output(0), Kind::f32);
    expect_like(spec, spec.output(0), spec.input(0));
    checked_product({p.n_head, p.head_dim, p.d_state}, {"state of a scan"});
    return std::make_unique<StateSpaceScan>(spec, p, vector_weight(spec, *spec.weight(0), p.n_head),
                                            vector_weight(spec, *spec.weight(1), p.n_head));
}

}  // namespace clarion
