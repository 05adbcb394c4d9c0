// Softmax attention over the pages of the cache (Vaswani et al. 2017), with a running maximum (Milakov and
// Gimelshein 2018), grouped queries (Ainslie et al. 2023) and an optional sliding window.
//
// A tile is some tokens of one sequence that stand next to each other in the batch, times the query heads that share
// a head of the cache. All its queries read the head together, a page of 64 positions at a time:
//
//     scores  s[query][64] = q K                        kernels/kv_products.h
//     softmax p[query][64] = exp(s - max so far); earlier sums are scaled down where the maximum grew
//     output  o[query][dim] += p V
//
// The positions are cut into spans of `span_positions`. Each span begins anew, with a maximum and sums of its own, and the spans
// are merged in order. So a few queries with a long past can be shared out: an item is a tile, some heads of the cache and,
// then, one span.
//
// A query's own additions never depend on its company: spans and pages come in order from the one that holds its first
// position, and positions that a query must not see are not added (they may hold anything; products of integers, which
// are exact, meet zeros there). So results are the same bits alone and in a batch, and on any number of threads.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "kernels/kv.h"
#include "kernels/kv_products.h"
#include "kernels/lanes.h"
#include "kernels/rows.h"
#include "machine/kv_cache.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using simd::f32x16;

constexpr int64_t lanes = simd::lanes, page_size = KvCache::page_size;

// Queries of one tile and one head of the cache. They amortise the conversion and the traffic of a page, and
// their own state (query, output, scores: some 300 floats each) should stay in the second-level cache.
constexpr int64_t tile_queries = 64;

// Products that an item should have at least, some 5 us of them; less work is not worth sharing out.
constexpr int64_t item_products = int64_t{1} << 18;

// Positions of a span. With 64 dims in f16 they are 256 KB, 10 us and more of memory traffic, to which the merging of
// a few hundred floats adds nothing.
constexpr int64_t span_positions = 1024;

// With fewer items for each thread than this, spans become items of their own. Then no thread ends more than an eighth of its
// share after the others.
constexpr int64_t items_per_thread = 8;

// One token can be shared out into so many spans. Beyond 131072 positions it is not shared out.
constexpr int64_t most_spans = 128;

int64_t padded(int64_t n) { return kv_blocks(n) * kv_block; }

// The positions that one query sees.
struct Query {
    int64_t first, last;  // last included

    // Of `size` positions from `begin` on.
    Range of(int64_t begin, int64_t size) const {
        return {std::clamp<int64_t>(first - begin, 0, size), std::clamp<int64_t>(last + 1 - begin, 0, size)};
    }
    bool sees_span(int64_t span) const { return !of(span * span_positions, span_positions).empty(); }
};

// What a query has seen of a span is a row of floats.
constexpr int64_t max_at = 0, sum_at = lanes, output_at = 2 * lanes;

void clear(float* state, int64_t floats) {
    std::fill_n(state, floats, 0.0f);
    state[max_at] = -std::numeric_limits<float>::infinity();
}

// Scales sums and outputs of a state to another maximum.
void rescale(float* state, int64_t floats, float max) {
    const f32x16 factor = simd::exp_to_one(simd::set1(state[max_at] - max));
    for (int64_t i = sum_at; i < floats; i += lanes)
        simd::store(state + i, simd::mul(simd::load(state + i), factor));
    state[max_at] = max;
}

// Merges a later span into what was seen before it.
void merge(float* state, float* span, int64_t floats) {
    const float highest = std::max(state[max_at], span[max_at]);
    rescale(state, floats, highest);
    rescale(span, floats, highest);
    for (int64_t i = sum_at; i < floats; i += lanes)
        simd::store(state + i, simd::add(simd::load(state + i), simd::load(span + i)));
}

class Attention final : public Op {
  public:
    Attention(const OpSpec& spec, const AttentionParameters& p)
        : q_(spec.input(0)),
          o_(spec.output(0)),
          group_(p.n_head / p.n_head_kv),
          dim_k_(p.head_dim),
          dim_v_(o_.width / p.n_head),
          window_(p.window),
          scale_(static_cast<float>(p.scale)),
          use_{spec.op, p.state, p.n_head_kv, q_.width / group_, o_.width / group_},
          threads_(spec.threads),
          tile_tokens_(std::max<int64_t>(1, tile_queries / group_)),
          state_floats_(output_at + padded(dim_v_)),
          most_states_(use_.n_head * group_ * most_spans),
          states_(4 * state_floats_ * most_states_),
          unfinished_(static_cast<size_t>(items_per_thread * threads_)) {
        tiles_.reserve(static_cast<size_t>(spec.max_tokens) + 1);
    }

    void validate(const Batch& batch) const override { use_.check(batch); }

    size_t scratch_bytes() const override {
        const int64_t rows = rows_for(tile_tokens_);
        const int64_t row = 4 * (padded(dim_k_) + page_size + 2 * state_floats_) +
                            static_cast<int64_t>(sizeof(Query)) + encoded_query_bytes(dim_k_);
        return static_cast<size_t>(prepared_bytes(dim_k_, dim_v_) + rows * row +
                                   most_queries * encoded_weights_bytes(dim_v_));
    }

    int64_t begin(const Batch& batch) override {
        tiles_.clear();
        int64_t products = 0, longest = 0, most_tokens = 0;
        for (int64_t t = 0; t < batch.n_tokens; ++t) {
            if (tiles_.empty() || t - tiles_.back() == tile_tokens_ ||
                batch.sequences[t] != batch.sequences[t - 1])
                tiles_.push_back(t);
            most_tokens = std::max(most_tokens, t - tiles_.back() + 1);
            const int64_t p = batch.positions[t];
            longest = std::max(longest, p + 1);
            products += (p + 1 - first_position(p)) * group_ * (dim_k_ + dim_v_);
        }
        const auto tiles = static_cast<int64_t>(tiles_.size());
        tiles_.push_back(batch.n_tokens);
        const int64_t spans = (longest + span_positions - 1) / span_positions;
        rows_per_tile_ = most_tokens * group_;
        spans_ = tiles * use_.n_head < items_per_thread * threads_ && threads_ > 1 &&
                         tiles * use_.n_head * spans * rows_per_tile_ <= most_states_
                     ? spans
                     : 1;
        const int64_t each = std::max<int64_t>(1, products / (tiles * spans_));
        heads_ = std::clamp<int64_t>((item_products + each - 1) / each, 1, use_.n_head);
        shares_ = (use_.n_head + heads_ - 1) / heads_;
        if (spans_ > 1)
            for (int64_t i = 0; i < tiles * shares_; ++i)
                unfinished_[static_cast<size_t>(i)].store(static_cast<int32_t>(spans_),
                                                          std::memory_order_relaxed);
        return tiles * shares_ * spans_;
    }

    // The last tiles come first: in a prompt they are the longest, and the short ones then fill the gaps at
    // the end.
    void run(const Batch& batch, int64_t item, const Scratch& scratch) override {
        const int64_t span = item % spans_, share = item / spans_;
        const int64_t tile = static_cast<int64_t>(tiles_.size()) - 2 - share / shares_;
        const int64_t head = share % shares_ * heads_, heads_end = std::min(head + heads_, use_.n_head);
        QueryTile rows = make_tile(batch, tile, scratch);
        for (int64_t h = head; h < heads_end; ++h) {
            if (spans_ == 1) {
                load_queries(rows, h);
                for (int64_t p = 0; p * span_positions <= rows.last; ++p)
                    run_span(batch, rows, h, p, rows.span);
                finish(rows, h);
            } else if (span * span_positions <= rows.last) {
                load_queries(rows, h);
                run_span(batch, rows, h, span, shared(tile, h, span));
            }
        }
        // Whoever finishes a tile's last span sees what the others wrote, and merges.
        if (spans_ == 1 ||
            unfinished_[static_cast<size_t>(share)].fetch_sub(1, std::memory_order_acq_rel) != 1)
            return;
        for (int64_t h = head; h < heads_end; ++h) {
            for (int64_t p = 0; p * span_positions <= rows.last; ++p) absorb(rows, p, shared(tile, h, p));
            finish(rows, h);
        }
    }

  private:
    // A tile's state, in scratch: one row for each query, and zeros up to whole blocks of queries.
    struct QueryTile {
        int64_t begin, n, first, last;  // its first token, queries, and positions that any of them sees
        std::byte* prepared;
        Query* query;
        Matrix q, s, state, span;
        Encoded queries, weights;  // weights of one block of queries
    };

    int64_t rows_for(int64_t tokens) const {
        return (tokens * group_ + most_queries - 1) / most_queries * most_queries;
    }
    int64_t first_position(int64_t p) const {
        return window_ > 0 ? std::max<int64_t>(0, p - window_ + 1) : 0;
    }
    // Where the states of a span are kept for whoever merges them.
    Matrix shared(int64_t tile, int64_t head, int64_t span) const {
        const int64_t row = ((tile * use_.n_head + head) * spans_ + span) * rows_per_tile_;
        return {reinterpret_cast<float*>(states_.data()) + row * state_floats_, state_floats_};
    }

    QueryTile make_tile(const Batch& batch, int64_t index, const Scratch& scratch) const {
        const int64_t begin = tiles_[static_cast<size_t>(index)],
                      end = tiles_[static_cast<size_t>(index) + 1];
        const int64_t rows = rows_for(end - begin);
        QueryTile tile{
            begin, (end - begin) * group_, batch.positions[begin], 0, scratch.data, {}, {}, {}, {}, {}, {},
            {}};
        tile.q = {reinterpret_cast<float*>(scratch.data + prepared_bytes(dim_k_, dim_v_)), padded(dim_k_)};
        tile.s = {tile.q.row(rows), page_size};
        tile.state = {tile.s.row(rows), state_floats_};
        tile.span = {tile.state.row(rows), state_floats_};
        tile.query = reinterpret_cast<Query*>(tile.span.row(rows));
        tile.queries = {reinterpret_cast<std::byte*>(tile.query + rows), encoded_query_bytes(dim_k_),
                        padded(dim_k_)};
        tile.weights = {tile.queries.data + rows * tile.queries.stride, encoded_weights_bytes(dim_v_),
                        page_size};
        for (int64_t r = 0; r < tile.n; ++r) {
            const int64_t p = batch.positions[begin + r / group_];
            tile.query[r] = {first_position(p), p};
            tile.first = std::min(tile.first, first_position(p));
            tile.last = std::max(tile.last, p);
        }
        std::fill_n(tile.q.data, rows * tile.q.stride, 0.0f);
        std::fill_n(tile.span.row(tile.n), (rows - tile.n) * state_floats_, 0.0f);
        return tile;
    }

    void load_queries(const QueryTile& tile, int64_t head) const {
        for (int64_t r = 0; r < tile.n; ++r) {
            const float* x = f32_row(q_, tile.begin + r / group_) + (head * group_ + r % group_) * dim_k_;
            for (int64_t d = 0; d < dim_k_; d += lanes)
                simd::store(tile.q.row(r) + d, simd::mul(load_n(x + d, dim_k_ - d), simd::set1(scale_)));
        }
    }

    // One span of the positions, from clear states; then into the tile's own, or left for whoever merges.
    void run_span(const Batch& batch, const QueryTile& tile, int64_t head, int64_t span, Matrix kept) const {
        const PagedState state = batch.paged(use_.state);
        const KvCache& cache = *state.cache;
        const auto [key_format, value_format] = cache.formats();
        const int64_t key_bytes = kv_bytes(key_format, dim_k_, false);
        const int64_t value_bytes = kv_bytes(value_format, dim_v_, true);
        const int32_t* pages = state.pages + batch.sequences[tile.begin] * state.pages_per_sequence;
        const int64_t first = std::max(tile.first, span * span_positions) / page_size;
        const int64_t last = std::min(tile.last, (span + 1) * span_positions - 1) / page_size;
        const int64_t next_head = std::min(head + 1, use_.n_head - 1);
        for (int64_t r = 0; r < tile.n; ++r) clear(tile.span.row(r), state_floats_);
        if (is_integer(key_format))
            for (int64_t r = 0; r < rows_for((tile.n + group_ - 1) / group_); ++r)
                encode_query(tile.q.row(r), dim_k_, tile.queries, r);
        for (int64_t page = first; page <= last; ++page) {
            const auto keys_of = [&](int64_t p, int64_t h) { return cache.keys(state.layer, pages[p], h); };
            const std::byte* keys = keys_of(page, head);
            const std::byte* next = page < last ? keys_of(page + 1, head) : keys_of(first, next_head);
            run_page(tile, page, {key_format, keys, dim_k_, next, key_bytes},
                     {value_format, keys + key_bytes, dim_v_, next + key_bytes, value_bytes});
        }
        if (kept.data == tile.span.data)
            absorb(tile, span, tile.span);
        else
            std::copy_n(tile.span.data, tile.n * state_floats_, kept.data);
    }

    // Merges a span into the tile's states; the first that a query sees is its state.
    void absorb(const QueryTile& tile, int64_t span, Matrix states) const {
        for (int64_t r = 0; r < tile.n; ++r) {
            const Query& query = tile.query[r];
            if (!query.sees_span(span)) continue;
            if (query.first / span_positions == span)
                std::copy_n(states.row(r), state_floats_, tile.state.row(r));
            else
                merge(tile.state.row(r), states.row(r), state_floats_);
        }
    }

    void run_page(const QueryTile& tile, int64_t page, PageMatrix keys, PageMatrix values) const {
        const int64_t begin = page * page_size;
        Range any{page_size, 0};  // positions that at least one query sees
        for (int64_t r = 0; r < tile.n; ++r) {
            const Range range = tile.query[r].of(begin, page_size);
            if (!range.empty()) any = {std::min(any.from, range.from), std::max(any.to, range.to)};
        }
        if (any.empty()) return;
        // Many queries multiply for long: each of them fetches a few lines of what comes next.
        const int64_t key_bytes = keys.next_bytes, value_bytes = values.next_bytes;
        const bool many = tile.n > 4;
        if (many) keys.next_bytes = values.next_bytes = 0;
        add_page_scores(tile, prepare(keys, false, tile.n, tile.prepared),
                        {any.from / lanes, (any.to + lanes - 1) / lanes});
        const int64_t step = (std::max(key_bytes, value_bytes) / tile.n / 64 + 1) * 64;
        for (int64_t r = 0; r < tile.n; ++r) {
            const Range range = tile.query[r].of(begin, page_size);
            if (!range.empty()) softmax(tile.s.row(r), range, tile.span.row(r));
            if (!many) continue;
            for (int64_t i = r * step; i < (r + 1) * step; i += 64) {
                if (i < key_bytes) simd::prefetch(keys.next + i);
                if (i < value_bytes) simd::prefetch(values.next + i);
            }
        }
        values = prepare(values, true, tile.n, tile.prepared);
        if (is_integer(values.format))
            add_integer_values(tile, begin, values);
        else
            add_float_values(tile, begin, values);
    }

    void add_page_scores(const QueryTile& tile, const PageMatrix& keys, Range vectors) const {
        for (int64_t r = 0; r < tile.n;) {
            const int64_t n = block_size(tile.n - r);
            std::fill_n(tile.s.row(r), n * page_size, 0.0f);
            if (is_integer(keys.format))
                add_scores(n, from(tile.queries, r), keys, vectors, tile.s.from(r));
            else
                add_scores(n, tile.q.from(r), keys, vectors, tile.s.from(r));
            r += n;
        }
    }

    // Positions that all queries of a block see are added for all at once, those before and after them for each alone.
    void add_float_values(const QueryTile& tile, int64_t begin, const PageMatrix& values) const {
        for (int64_t r = 0; r < tile.n;) {
            const int64_t n = block_size(tile.n - r), end = std::min(tile.n, r + n);
            Range all{0, page_size};
            for (int64_t j = r; j < end; ++j) {
                const Range range = tile.query[j].of(begin, page_size);
                all = {std::max(all.from, range.from), std::min(all.to, range.to)};
            }
            if (all.empty()) all = {page_size, page_size};
            const auto alone = [&](int64_t j, Range positions) {
                if (!positions.empty()) add_values(1, tile.s.from(j), values, positions, outputs(tile, j));
            };
            for (int64_t j = r; j < end; ++j) {
                const Range range = tile.query[j].of(begin, page_size);
                alone(j, {range.from, std::min(range.to, all.from)});
            }
            if (!all.empty()) add_values(n, tile.s.from(r), values, all, outputs(tile, r));
            for (int64_t j = r; j < end; ++j) {
                const Range range = tile.query[j].of(begin, page_size);
                alone(j, {std::max(range.from, all.to), range.to});
            }
            r += n;
        }
    }

    void add_integer_values(const QueryTile& tile, int64_t begin, const PageMatrix& values) const {
        for (int64_t r = 0; r < tile.n;) {
            const int64_t n = block_size(tile.n - r);
            for (int64_t j = 0; j < n; ++j) {
                const Range range =
                    r + j < tile.n ? tile.query[r + j].of(begin, page_size) : Range{page_size, page_size};
                encode_weights(tile.s.row(r + j), range, values, tile.weights, j);
            }
            add_values(n, tile.weights, values, outputs(tile, r));
            r += n;
        }
    }

    static Encoded from(const Encoded& rows, int64_t r) {
        return {rows.data + r * rows.stride, rows.stride, rows.columns};
    }
    static Matrix outputs(const QueryTile& tile, int64_t r) {
        return {tile.span.row(r) + output_at, tile.span.stride};
    }

    // Scores to weights for one query and one page; outside the range they are zero.
    void softmax(float* s, Range range, float* state) const {
        constexpr float lowest = -std::numeric_limits<float>::infinity();
        std::fill(s, s + range.from, lowest);
        std::fill(s + range.to, s + page_size, lowest);
        f32x16 max = simd::load(s);
        for (int64_t i = lanes; i < page_size; i += lanes) max = simd::max(max, simd::load(s + i));
        const float highest = std::max(state[max_at], simd::reduce_max(max));
        if (highest != state[max_at]) rescale(state, state_floats_, highest);
        f32x16 sum = simd::load(state + sum_at);
        for (int64_t i = 0; i < page_size; i += lanes) {
            const f32x16 p = simd::exp_to_one(simd::sub(simd::load(s + i), simd::set1(highest)));
            simd::store(s + i, p);
            sum = simd::add(sum, p);
        }
        simd::store(state + sum_at, sum);
    }

    // The tile's states as rows of the output. Adding zero makes -0 and +0 one: products with zeros may add either.
    void finish(const QueryTile& tile, int64_t head) const {
        for (int64_t r = 0; r < tile.n; ++r) {
            float* state = tile.state.row(r);
            const f32x16 sum = simd::set1(simd::reduce_add(simd::load(state + sum_at)));
            for (int64_t d = output_at; d < state_floats_; d += lanes)
                simd::store(state + d, simd::add(simd::div(simd::load(state + d), sum), simd::zero()));
            std::copy_n(state + output_at, dim_v_,
                        f32_row(o_, tile.begin + r / group_) + (head * group_ + r % group_) * dim_v_);
        }
    }

    const Buffer &q_, &o_;
    int64_t group_, dim_k_, dim_v_, window_;
    float scale_;
    CacheUse use_;
    int64_t threads_, tile_tokens_;
    int64_t state_floats_, most_states_;
    ZeroMemory states_;                             // of spans that are items
    std::vector<std::atomic<int32_t>> unfinished_;  // spans of a tile and some heads
    // Of the batch:
    std::vector<int64_t> tiles_;  // the first token of each tile, and the end
    int64_t rows_per_tile_ = 0, spans_ = 1, heads_ = 1, shares_ = 1;
};

}  // namespace

std::unique_ptr<Op> make_attention(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const Buffer &q = spec.input(0), &o = spec.output(0);
    const AttentionParameters p(spec);
    const int64_t n_head = p.n_head, n_head_kv = p.n_head_kv;
    for (const Buffer* b : {&q, &o}) {
        expect_kind(spec, *b, Kind::f32);
        expect_rows(spec, *b, Rows::tokens);
    }
    expect_heads(spec, q, n_head, p.head_dim);
    if (n_head_kv < 1 || n_head % n_head_kv != 0)
        spec.fail({"n_head_kv: found ", n_head_kv, ", expected a divisor of n_head, ", n_head});
    if (o.width % n_head != 0) expect_heads(spec, o, n_head, o.width / n_head);
    if (p.window < 0 || p.state < 0) spec.fail({"state and window cannot be negative"});
    return std::make_unique<Attention>(spec, p);
}

}  // namespace clarion
