// delta_rule: the gated delta rule, S ← f S;  S ← S + beta k (v - Sᵀk)ᵀ;  o = scale Sᵀq.
//
// A state is [head][panel of 16 columns of dim_v][dim_k][16]; a tile is two panels of a head (kernels/panels.h). No column
// needs another one. For each token a tile is read for r = Sᵀ(f k), and changed by what follows from it; where a token comes
// next, its r is computed while the tile is changed, so each of a prompt's tokens loads and stores the tile once.
//
// What bounds it, for each vector of 16 numbers and each token of a prompt:
//
//     products    4: f S, k change, q S, and next k S
//     loads       1, and the broadcasts of k, q, next k, which the tile's panels share: 2.5 with two panels
//     stores      1
//
// A core with one 512-bit multiplier and half a store a cycle (Zen 4) needs 4 cycles for the products and 2.5 for the rest; one
// with two multipliers and a store a cycle (Ice Lake) 2 and 1.25. So products are the roofline, not L1, and no form with fewer of
// them is left that gives the same bits however a prompt is cut: taking two tokens at once would save one of eight.
// A single token is bound by the way of the state from memory and back: each tile is read and written once.
#include "kernels/panels.h"
#include "kernels/recurrence.h"
#include "machine/checked.h"
#include "operations.h"

namespace clarion {

namespace {

class DeltaRule final : public RecurrentOp {
  public:
    DeltaRule(const OpSpec& spec, const DeltaRuleParameters& p, std::vector<const Buffer*> logged)
        : RecurrentOp(spec, p.state, p.n_head * p.dim_k * p.dim_v, std::move(logged),
                      p.dim_k * std::min(p.dim_v, tile_columns),
                      tiles_alike(p.dim_v, p.tiled ? 1 : p.n_head / p.n_head_k)),
          p_(p),
          q_(spec.input(0)),
          o_(spec.output(0)),
          per_row_(spec.input(3).width != p.n_head) {
        for (int64_t head = 0; head < p.n_head; ++head)
            for (int64_t first = 0; first < p.dim_v; first += tile_columns) {
                const PanelTile panels{p.dim_k, first, std::min(tile_columns, p.dim_v - first)};
                tiles_.push_back({(head * p.dim_v + first) * p.dim_k, panels.size()});
                places_.push_back({head, panels});
            }
    }
    size_t scratch_bytes() const override {
        return static_cast<size_t>(4 * padded() + tile_columns * p_.dim_k) * sizeof(float);
    }

  private:
    enum Logged { k, v, decay, beta };
    struct Place {
        int64_t head;
        PanelTile panels;
    };
    // What is computed of a token for all columns: f, and f k.
    struct Prepared {
        float *factors, *k;
    };

    int64_t padded() const { return (p_.dim_k + simd::lanes - 1) / simd::lanes * simd::lanes; }

    void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch& scratch) const override {
        if (per_row_)
            run_tile<true>(tokens, span, i, scratch);
        else
            run_tile<false>(tokens, span, i, scratch);
    }

    template <bool per_row>
    void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch& scratch) const {
        const auto [head, panels] = places_[static_cast<size_t>(i)];
        const int64_t head_k = p_.tiled ? head % p_.n_head_k : head / (p_.n_head / p_.n_head_k);
        auto* room = reinterpret_cast<float*>(scratch.data);
        const Prepared prepared[2] = {{room, room + padded()}, {room + 2 * padded(), room + 3 * padded()}};
        room += 4 * padded();
        const auto k_of = [&](int64_t p) { return row(tokens, k, p) + head_k * p_.dim_k; };
        alignas(64) float shared[span_tokens];  // factors of all rows
        if (!per_row) decay_factors(span, [&](int64_t p) { return row(tokens, decay, p)[head]; }, shared);
        alignas(64) float values[2][tile_columns], r[tile_columns], change[tile_columns], o[tile_columns];
        float betas[2];
        // A token early, so that nobody waits for what lies in L2.
        const auto prepare = [&](int64_t p) {
            const Prepared& to = prepared[p & 1];
            betas[p & 1] = row(tokens, beta, p)[head];
            const float* v_row = row(tokens, v, p) + head * p_.dim_v + panels.first;
            for (int64_t c = 0; c < panels.columns; c += simd::lanes)
                simd::store(values[p & 1] + c, load_n(v_row + c, panels.columns - c));
            const float* from = k_of(p);
            const float* decays = row(tokens, decay, p) + (per_row ? head * p_.dim_k : 0);
            simd::f32x16 factor = per_row ? simd::zero() : simd::set1(shared[p - span.first]);
            for (int64_t c = 0; c < p_.dim_k; c += simd::lanes) {
                if (per_row) {
                    factor = simd::exp(load_n(decays + c, p_.dim_k - c));
                    simd::store(to.factors + c, factor);
                }
                simd::store(to.k + c, simd::mul(factor, load_n(from + c, p_.dim_k - c)));
            }
        };
        bool has_r = false;
        const Tile& tile = tiles_[static_cast<size_t>(i)];
        const int64_t fetch = tokens.fetch(tile);
        apply(tokens, span, tile, [&](float* s, int64_t p) {
            const bool again = tokens.again(p), with_next = p + 1 < span.last;
            if (const int64_t later = p + tokens_ahead; !again && later < tokens.end()) {
                prefetch_row(batch_row(tokens, q_, later) + head_k * p_.dim_k, p_.dim_k);
                prefetch_row(k_of(later), p_.dim_k);
                prefetch_row(row(tokens, v, later) + head * p_.dim_v + panels.first, panels.columns);
                prefetch_row(batch_row(tokens, o_, later) + head * p_.dim_v + panels.first, panels.columns);
            }
            if (with_next) prepare(p + 1);
            const float* q = again ? k_of(p) : batch_row(tokens, q_, p) + head_k * p_.dim_k;
            if (!has_r) prepare(p);
            const float* factors = per_row ? prepared[p & 1].factors : shared + (p - span.first);
            const Rank1 token{p_.dim_k, factors, k_of(p), q, prepared[(p + 1) & 1].k};
            panels.with_panels(s, room, [&](float* at) {
                if (!has_r) multiply_panels(at, panels.panels(), p_.dim_k, prepared[p & 1].k, r, fetch);
                const simd::f32x16 b = simd::set1(betas[p & 1]);
                for (int64_t c = 0; c < panels.columns; c += simd::lanes)
                    simd::store(change + c,
                                simd::mul(b, simd::sub(simd::load(values[p & 1] + c), simd::load(r + c))));
                if (with_next)
                    update_panels<per_row, true, false>(at, panels.panels(), token, change, o, r, 0);
                else
                    update_panels<per_row, false, true>(at, panels.panels(), token, change, o, r, fetch);
            });
            has_r = with_next;
            if (again) return;
            float* out = batch_row(tokens, o_, p) + head * p_.dim_v + panels.first;
            const simd::f32x16 scale = simd::set1(static_cast<float>(p_.scale));
            for (int64_t c = 0; c < panels.columns; c += simd::lanes)
                store_n(out + c, simd::mul(scale, simd::load(o + c)), panels.columns - c);
        });
    }

    const DeltaRuleParameters p_;
    const Buffer &q_, &o_;
    bool per_row_;
    std::vector<Place> places_;  // of the tiles
};

}  // namespace

std::unique_ptr<Op> make_delta_rule(const OpSpec& spec) {
    const DeltaRuleParameters p(spec);
    spec.expect(5, 1, 0);
    for (const Buffer* buffer : spec.inputs) expect_kind(spec, *buffer, Kind::f32);
    for (const Buffer* buffer : spec.inputs) expect_rows(spec, *buffer, Rows::tokens);
    expect_heads(spec, spec.input(0), p.n_head_k, p.dim_k);
    expect_heads(spec, spec.input(1), p.n_head_k, p.dim_k);
    expect_heads(spec, spec.input(2), p.n_head, p.dim_v);
    if (p.n_head % p.n_head_k != 0)
        spec.fail({p.n_head, " heads share ", p.n_head_k, ", expected a divisor"});
    if (spec.input(3).width != p.n_head) expect_heads(spec, spec.input(3), p.n_head, p.dim_k);
    expect_width(spec, spec.input(4), p.n_head);
    expect_kind(spec, spec.output(0), Kind::f32);
    expect_like(spec, spec.output(0), spec.input(2));
    checked_product({p.n_head, p.dim_k, p.dim_v}, {"state of a delta rule"});
    return std::make_unique<DeltaRule>(
        spec, p, std::vector{&spec.input(1), &spec.input(2), &spec.input(3), &spec.input(4)});
}

}  // namespace clarion
