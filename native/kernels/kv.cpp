// Keys and values on their way into the cache.
#include "kernels/kv.h"

#include "kernels/kv_store.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "machine/kv_cache.h"
#include "operations.h"

namespace clarion {

void CacheUse::check(const Batch& batch) const {
    const PagedState at = batch.paged(state);
    if (!at.cache) refuse({"operation '", op, "', state ", state, ": the batch has no cache with it"});
    const KvCache::Layer& found = at.cache->layers()[static_cast<size_t>(at.layer)];
    if ((n_head != 0 && found.n_head != n_head) || found.n_head * found.dim_k != width_k ||
        found.n_head * found.dim_v != width_v)
        refuse({"operation '", op, "', state ", state, ": the cache has ", found.n_head, " heads of ",
                found.dim_k, " and ", found.dim_v, ", which do not fit rows of ", width_k, " and ", width_v});
}

namespace {

// Where token t goes: its page and its slot there.
struct TokenSlot {
    int64_t page, slot;

    TokenSlot(const Batch& batch, const PagedState& state, int64_t t) {
        const int64_t position = batch.positions[t];
        page = state.pages[batch.sequences[t] * state.pages_per_sequence + position / KvCache::page_size];
        slot = position % KvCache::page_size;
    }
};

// k [dim_k] and v [dim_v] of one head, to one place.
void write(const PagedState& state, TokenSlot place, int64_t head, const float* k, const float* v) {
    const KvCache& cache = *state.cache;
    const KvCache::Layer& shape = cache.layers()[static_cast<size_t>(state.layer)];
    const auto [keys, values] = cache.formats();
    store_keys(keys, cache.keys(state.layer, place.page, head), shape.dim_k, place.slot, k);
    store_values(values, cache.values(state.layer, place.page, head), shape.dim_v, place.slot, v);
}

class KvWrite final : public RowOp {
  public:
    KvWrite(const Buffer& k, const Buffer& v, CacheUse use)
        : RowOp(k, k.width + v.width), k_(k), v_(v), use_(std::move(use)) {}

    void validate(const Batch& batch) const override { use_.check(batch); }

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        const PagedState state = batch.paged(use_.state);
        const KvCache::Layer& layer = state.cache->layers()[static_cast<size_t>(state.layer)];
        const TokenSlot place(batch, state, row);
        for (int64_t h = 0; h < layer.n_head; ++h)
            write(state, place, h, f32_row(k_, row) + h * layer.dim_k, f32_row(v_, row) + h * layer.dim_v);
    }

    const Buffer &k_, &v_;
    CacheUse use_;
};

class RopeKv final : public RowOp {
  public:
    RopeKv(const OpSpec& spec, const RopeKvParameters& p, CacheUse use)
        : RowOp(spec.input(0), spec.input(0).width + spec.input(1).width + spec.input(2).width),
          q_(spec.input(0)),
          k_(spec.input(1)),
          v_(spec.input(2)),
          table_(spec.input(3)),
          n_head_(p.n_head),
          q_head_(spec, table_, spec.weight(0), p.head_dim, p.n_rot, p.neox, p.eps),
          k_head_(spec, table_, spec.weight(1), p.head_dim, p.n_rot, p.neox, p.eps),
          use_(std::move(use)) {}

    void validate(const Batch& batch) const override { use_.check(batch); }
    size_t scratch_bytes() const override { return 4 * static_cast<size_t>(k_head_.head_dim()); }

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch& scratch) override {
        const float* table = f32_row(table_, row);
        const int64_t head_dim = q_head_.head_dim(), dim_v = v_.width / use_.n_head;
        for (int64_t h = 0; h < n_head_; ++h) {
            float* q = f32_row(q_, row) + h * head_dim;
            q_head_.apply(q, table, q);
        }
        const PagedState state = batch.paged(use_.state);
        const TokenSlot place(batch, state, row);
        auto* k = reinterpret_cast<float*>(scratch.data);
        for (int64_t h = 0; h < use_.n_head; ++h) {
            k_head_.apply(f32_row(k_, row) + h * head_dim, table, k);
            write(state, place, h, k, f32_row(v_, row) + h * dim_v);
        }
    }

    const Buffer &q_, &k_, &v_, &table_;
    int64_t n_head_;
    HeadTransform q_head_, k_head_;
    CacheUse use_;
};

// The state, which a batch's cache must have.
CacheUse use_of(const OpSpec& spec, int64_t state, int64_t n_head, const Buffer& k, const Buffer& v) {
    if (state < 0) spec.fail({"state: found ", state});
    return {spec.op, state, n_head, k.width, v.width};
}

void expect_tokens(const OpSpec& spec, const Buffer& b) {
    expect_kind(spec, b, Kind::f32);
    expect_rows(spec, b, Rows::tokens);
}

}  // namespace

std::unique_ptr<Op> make_kv_write(const OpSpec& spec) {
    spec.expect(2, 0, 0);
    const Buffer &k = spec.input(0), &v = spec.input(1);
    expect_tokens(spec, k);
    expect_tokens(spec, v);
    return std::make_unique<KvWrite>(k, v, use_of(spec, KvWriteParameters(spec).state, 0, k, v));
}

std::unique_ptr<Op> make_rope_kv(const OpSpec& spec) {
    spec.expect(4, {0, 1}, {0, 2});
    const Buffer &q = spec.input(0), &k = spec.input(1), &v = spec.input(2);
    for (const Buffer* b : {&q, &k, &v}) expect_tokens(spec, *b);
    const RopeKvParameters p(spec);
    expect_heads(spec, q, p.n_head, p.head_dim);
    expect_heads(spec, k, p.n_head_kv, p.head_dim);
    if (v.width % p.n_head_kv != 0) expect_heads(spec, v, p.n_head_kv, v.width / p.n_head_kv);
    expect_in_place(spec, 0, q);
    return std::make_unique<RopeKv>(spec, p, use_of(spec, p.state, p.n_head_kv, k, v));
}

}  // namespace clarion
