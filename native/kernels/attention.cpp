// A tile is some tokens of one sequence that stand next to each other in the batch, times the query heads that share
// a head of the cache. All its queries read the head together, a page of 64 positions at a time:
//
//     scores  s[query][64] = q K                        kernels/kv_products.h
//     softmax p[query][64] = exp(s - max so far); earlier sums are scaled down where the maximum grew
//     output  o[query][dim] += p V
//
// Where the program asks for it, scores are capped and sloped before the softmax, and a sink joins the sum after the last page.
//
// The positions are cut into spans of `span_positions`. Each span begins anew, with a maximum and sums of its own, and the spans
// are merged in order. So a few queries with a long past can be shared out: an item is a tile, some heads of the cache and,
// then, one span.
//
// A query's own additions never depend on its company: spans and pages come in order from the one that holds its first
// position, and positions that a query must not see are not added (they may hold anything; products of integers, which
// are exact, meet zeros there). So results are the same bits alone and in a batch, and on any number of threads.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/lanes.h"
#include "kernels/rms_norm.h"
#include "kernels/rows.h"
#include "kernels/score_terms.h"
#include "machine/checked.h"
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

// What a query has seen of a span is a row of floats.
constexpr int64_t max_at = 0, sum_at = lanes, output_at = 2 * lanes;

void clear(float* state, int64_t floats) {
    std::fill_n(state, floats, 0.0f);
    state[max_at] = -std::numeric_limits<float>::infinity();
}

Matrix outputs(Matrix states, int64_t r) { return {states.row(r) + output_at, states.stride}; }

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

bool sees_span(const Query& query, int64_t span) {
    return !query.of(span * span_positions, span_positions).empty();
}

Encoded from(const Encoded& rows, int64_t r) {
    return {rows.data + r * rows.stride, rows.stride, rows.columns};
}

}  // namespace

PagedAttention::PagedAttention(const OpSpec& spec, AttentionShape shape, int64_t prepared)
    : q_(spec.input(0)),
      o_(spec.output(0)),
      shape_(std::move(shape)),
      group_(shape_.n_head / shape_.n_head_kv),
      prepared_(prepared),
      threads_(spec.threads),
      tile_tokens_(std::max<int64_t>(1, tile_queries / group_)),
      state_floats_(output_at + padded(shape_.dim_v)),
      most_states_(shape_.n_head * most_spans),
      states_(4 * state_floats_ * most_states_),
      unfinished_(static_cast<size_t>(items_per_thread * threads_)) {
    const auto most = static_cast<size_t>(spec.max_tokens);
    tiles_.reserve(most + 1);
    if (shape_.causal) return;
    places_.reserve(most);
    ends_.resize(most);
}

size_t PagedAttention::scratch_bytes() const {
    const int64_t rows = rows_for(tile_tokens_), dim_k = shape_.dim_k;
    const int64_t row = 4 * (padded(dim_k) + page_size + 2 * state_floats_) +
                        static_cast<int64_t>(sizeof(Query)) + encoded_query_bytes(dim_k);
    return static_cast<size_t>(prepared_ + rows * row + most_queries * encoded_weights_bytes(shape_.dim_v));
}

int64_t PagedAttention::rows_for(int64_t tokens) const {
    return (tokens * group_ + most_queries - 1) / most_queries * most_queries;
}

// A text that is seen in both directions is all in the batch: its end is the greatest position of its tokens there.
void PagedAttention::find_ends(const Batch& batch) {
    const auto place = [](int64_t sequence, int64_t position) { return sequence << 32 | position; };
    places_.clear();
    for (int64_t t = 0; t < batch.n_tokens; ++t)
        places_.push_back(place(batch.sequences[t], batch.positions[t]));
    std::sort(places_.begin(), places_.end());
    for (int64_t t = 0; t < batch.n_tokens; ++t) {
        const auto next =
            std::upper_bound(places_.begin(), places_.end(), place(batch.sequences[t], INT32_MAX));
        ends_[static_cast<size_t>(t)] = static_cast<int32_t>(next[-1]);
    }
}

Query PagedAttention::query_of(const Batch& batch, int64_t token) const {
    const int64_t p = batch.positions[token], window = shape_.window;
    Query query{p, 0, shape_.causal ? p : ends_[static_cast<size_t>(token)]};
    if (window == 0) return query;
    query.first = shape_.chunked ? p / window * window : std::max<int64_t>(0, p - window + 1);
    query.last = std::min(query.last, p + window - 1);
    return query;
}

int64_t PagedAttention::begin(const Batch& batch) {
    if (!shape_.causal) find_ends(batch);
    tiles_.clear();
    int64_t products = 0, first = most_elements, last = 0, most_tokens = 0;
    for (int64_t t = 0; t < batch.n_tokens; ++t) {
        if (tiles_.empty() || t - tiles_.back() == tile_tokens_ ||
            batch.sequences[t] != batch.sequences[t - 1])
            tiles_.push_back(t);
        most_tokens = std::max(most_tokens, t - tiles_.back() + 1);
        const Query query = query_of(batch, t);
        first = std::min(first, query.first);
        last = std::max(last, query.last);
        products += (query.last + 1 - query.first) * group_ * (shape_.dim_k + shape_.dim_v);
    }
    const int64_t tiles = static_cast<int64_t>(tiles_.size()), n_head_kv = shape_.n_head_kv;
    tiles_.push_back(batch.n_tokens);
    first_span_ = first / span_positions;
    const int64_t spans = last / span_positions + 1 - first_span_;
    rows_per_tile_ = most_tokens * group_;
    spans_ = tiles * n_head_kv < items_per_thread * threads_ && threads_ > 1 &&
                     tiles * n_head_kv * spans * rows_per_tile_ <= most_states_
                 ? spans
                 : 1;
    const int64_t each = std::max<int64_t>(1, products / (tiles * spans_));
    heads_ = std::clamp<int64_t>((item_products + each - 1) / each, 1, n_head_kv);
    shares_ = (n_head_kv + heads_ - 1) / heads_;
    if (spans_ > 1)
        for (int64_t i = 0; i < tiles * shares_; ++i)
            unfinished_[static_cast<size_t>(i)].store(static_cast<int32_t>(spans_),
                                                      std::memory_order_relaxed);
    return tiles * shares_ * spans_;
}

// The last tiles come first: in a prompt they are the longest, and the short ones then fill the gaps at the end.
void PagedAttention::run(const Batch& batch, int64_t item, const Scratch& scratch) {
    const int64_t span = first_span_ + item % spans_, share = item / spans_;
    const int64_t tile = static_cast<int64_t>(tiles_.size()) - 2 - share / shares_;
    const int64_t head = share % shares_ * heads_, heads_end = std::min(head + heads_, shape_.n_head_kv);
    const QueryTile rows = make_tile(batch, tile, scratch);
    const int64_t first_span = rows.first / span_positions, last_span = rows.last / span_positions;
    for (int64_t h = head; h < heads_end; ++h) {
        if (spans_ == 1) {
            load_queries(rows, h);
            for (int64_t p = first_span; p <= last_span; ++p) run_span(batch, rows, h, p, rows.span);
            finish(rows, h);
        } else if (first_span <= span && span <= last_span) {
            load_queries(rows, h);
            run_span(batch, rows, h, span, shared(tile, h, span));
        }
    }
    // Whoever finishes a tile's last span sees what the others wrote, and merges.
    if (spans_ == 1 || unfinished_[static_cast<size_t>(share)].fetch_sub(1, std::memory_order_acq_rel) != 1)
        return;
    for (int64_t h = head; h < heads_end; ++h) {
        for (int64_t p = first_span; p <= last_span; ++p) absorb(rows, p, shared(tile, h, p));
        finish(rows, h);
    }
}

// Where the states of a span are kept for whoever merges them.
Matrix PagedAttention::shared(int64_t tile, int64_t head, int64_t span) const {
    const int64_t row = ((tile * shape_.n_head_kv + head) * spans_ + span - first_span_) * rows_per_tile_;
    return {reinterpret_cast<float*>(states_.data()) + row * state_floats_, state_floats_};
}

PagedAttention::QueryTile PagedAttention::make_tile(const Batch& batch, int64_t index,
                                                    const Scratch& scratch) const {
    const int64_t begin = tiles_[static_cast<size_t>(index)], end = tiles_[static_cast<size_t>(index) + 1];
    const int64_t rows = rows_for(end - begin), dim_k = shape_.dim_k;
    QueryTile tile{
        begin, (end - begin) * group_, batch.positions[begin], 0, scratch.data, {}, {}, {}, {}, {}, {}, {}};
    tile.q = {reinterpret_cast<float*>(scratch.data + prepared_), padded(dim_k)};
    tile.s = {tile.q.row(rows), page_size};
    tile.state = {tile.s.row(rows), state_floats_};
    tile.span = {tile.state.row(rows), state_floats_};
    tile.query = reinterpret_cast<Query*>(tile.span.row(rows));
    tile.queries = {reinterpret_cast<std::byte*>(tile.query + rows), encoded_query_bytes(dim_k),
                    padded(dim_k)};
    tile.weights = {tile.queries.data + rows * tile.queries.stride, encoded_weights_bytes(shape_.dim_v),
                    page_size};
    for (int64_t r = 0; r < tile.n; ++r) {
        tile.query[r] = query_of(batch, begin + r / group_);
        tile.first = std::min(tile.first, tile.query[r].first);
        tile.last = std::max(tile.last, tile.query[r].last);
    }
    std::fill_n(tile.q.data, rows * tile.q.stride, 0.0f);
    std::fill_n(tile.span.row(tile.n), (rows - tile.n) * state_floats_, 0.0f);
    return tile;
}

void PagedAttention::load_queries(const QueryTile& tile, int64_t head) const {
    const int64_t dim_k = shape_.dim_k;
    for (int64_t r = 0; r < tile.n; ++r) {
        const float* x = f32_row(q_, tile.begin + r / group_) + head_of(head, r) * dim_k;
        for (int64_t d = 0; d < dim_k; d += lanes)
            simd::store(tile.q.row(r) + d, simd::mul(load_n(x + d, dim_k - d), simd::set1(shape_.scale)));
    }
}

// One span of the positions, from clear states; then into the tile's own, or left for whoever merges.
void PagedAttention::run_span(const Batch& batch, const QueryTile& tile, int64_t head, int64_t span,
                              Matrix kept) const {
    const PagedState state = batch.paged(shape_.use.state);
    const KvCache& cache = *state.cache;
    const KvCache::Layer& layer = cache.layers()[static_cast<size_t>(state.layer)];
    const auto [key_format, value_format] = cache.formats();
    const int64_t key_bytes = kv_bytes(key_format, layer.dim_k, false);
    const int64_t value_bytes = kv_bytes(value_format, layer.dim_v, true);
    const int32_t* pages = state.pages + batch.sequences[tile.begin] * state.pages_per_sequence;
    const int64_t first = std::max(tile.first, span * span_positions) / page_size;
    const int64_t last = std::min(tile.last, (span + 1) * span_positions - 1) / page_size;
    const auto keys_of = [&](int64_t p, int64_t h) {
        return cache.keys(state.layer, pages[p], std::min(h, layer.n_head - 1));
    };
    for (int64_t r = 0; r < tile.n; ++r) clear(tile.span.row(r), state_floats_);
    if (is_integer(key_format))
        for (int64_t r = 0; r < rows_for((tile.n + group_ - 1) / group_); ++r)
            encode_query(tile.q.row(r), shape_.dim_k, tile.queries, r);
    for (int64_t page = first; page <= last; ++page) {
        const std::byte* keys = keys_of(page, head);
        const std::byte* next = page < last ? keys_of(page + 1, head) : keys_of(first, head + 1);
        run_page(tile, head, page, {key_format, keys, shape_.dim_k, next, key_bytes},
                 {value_format, keys + key_bytes, shape_.dim_v, next + key_bytes, value_bytes});
    }
    if (kept.data == tile.span.data)
        absorb(tile, span, tile.span);
    else
        std::copy_n(tile.span.data, tile.n * state_floats_, kept.data);
}

// Merges a span into the tile's states; the first that a query sees is its state.
void PagedAttention::absorb(const QueryTile& tile, int64_t span, Matrix states) const {
    for (int64_t r = 0; r < tile.n; ++r) {
        const Query& query = tile.query[r];
        if (!sees_span(query, span)) continue;
        if (query.first / span_positions == span)
            std::copy_n(states.row(r), state_floats_, tile.state.row(r));
        else
            merge(tile.state.row(r), states.row(r), state_floats_);
    }
}

PageMatrix PagedAttention::prepare_keys(const PageMatrix& keys, int64_t queries, std::byte* scratch) const {
    return prepare(keys, false, queries, scratch);
}

PageMatrix PagedAttention::prepare_values(const PageMatrix&, const PageMatrix& values, int64_t queries,
                                          std::byte* scratch) const {
    return prepare(values, true, queries, scratch);
}

void PagedAttention::run_page(const QueryTile& tile, int64_t head, int64_t page, PageMatrix keys,
                              PageMatrix values) const {
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
    const PageMatrix prepared = prepare_keys(keys, tile.n, tile.prepared);
    add_page_scores(tile, prepared, {any.from / lanes, (any.to + lanes - 1) / lanes});
    const int64_t step = (std::max(key_bytes, value_bytes) / tile.n / 64 + 1) * 64;
    for (int64_t r = 0; r < tile.n; ++r) {
        const Range range = tile.query[r].of(begin, page_size);
        if (!range.empty()) {
            if (shape_.cap != 0.0f) cap_scores(tile.s.row(r), shape_.cap);
            if (!shape_.slopes.empty())
                slope_scores(tile.s.row(r), shape_.slopes[static_cast<size_t>(head_of(head, r))],
                             tile.query[r].position - begin);
            softmax(tile.s.row(r), range, tile.span.row(r));
        }
        if (!many) continue;
        for (int64_t i = r * step; i < (r + 1) * step; i += 64) {
            if (i < key_bytes) simd::prefetch(keys.next + i);
            if (i < value_bytes) simd::prefetch(values.next + i);
        }
    }
    values = prepare_values(prepared, values, tile.n, tile.prepared);
    if (is_integer(values.format))
        add_integer_values(tile, begin, values);
    else
        add_float_values(tile, begin, values);
}

void PagedAttention::add_page_scores(const QueryTile& tile, const PageMatrix& keys, Range vectors) const {
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
void PagedAttention::add_float_values(const QueryTile& tile, int64_t begin, const PageMatrix& values) const {
    for (int64_t r = 0; r < tile.n;) {
        const int64_t n = block_size(tile.n - r), end = std::min(tile.n, r + n);
        Range all{0, page_size};
        for (int64_t j = r; j < end; ++j) {
            const Range range = tile.query[j].of(begin, page_size);
            all = {std::max(all.from, range.from), std::min(all.to, range.to)};
        }
        if (all.empty()) all = {page_size, page_size};
        const auto alone = [&](int64_t j, Range positions) {
            if (!positions.empty()) add_values(1, tile.s.from(j), values, positions, outputs(tile.span, j));
        };
        for (int64_t j = r; j < end; ++j) {
            const Range range = tile.query[j].of(begin, page_size);
            alone(j, {range.from, std::min(range.to, all.from)});
        }
        if (!all.empty()) add_values(n, tile.s.from(r), values, all, outputs(tile.span, r));
        for (int64_t j = r; j < end; ++j) {
            const Range range = tile.query[j].of(begin, page_size);
            alone(j, {std::max(range.from, all.to), range.to});
        }
        r += n;
    }
}

void PagedAttention::add_integer_values(const QueryTile& tile, int64_t begin,
                                        const PageMatrix& values) const {
    for (int64_t r = 0; r < tile.n;) {
        const int64_t n = block_size(tile.n - r);
        for (int64_t j = 0; j < n; ++j) {
            const Range range =
                r + j < tile.n ? tile.query[r + j].of(begin, page_size) : Range{page_size, page_size};
            encode_weights(tile.s.row(r + j), range, values, tile.weights, j);
        }
        add_values(n, tile.weights, values, outputs(tile.span, r));
        r += n;
    }
}

// Scores to weights for one query and one page; outside the range they are zero.
void PagedAttention::softmax(float* s, Range range, float* state) const {
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

// The tile's states as rows of the output. A sink is one more span, with a sum of 1 and no outputs. Adding zero makes -0 and +0
// one: products with zeros may add either.
void PagedAttention::finish(const QueryTile& tile, int64_t head) const {
    for (int64_t r = 0; r < tile.n; ++r) {
        float* state = tile.state.row(r);
        if (!shape_.sinks.empty()) {
            float* sink = tile.span.row(r);
            clear(sink, state_floats_);
            sink[max_at] = shape_.sinks[static_cast<size_t>(head_of(head, r))];
            sink[sum_at] = 1.0f;
            merge(state, sink, state_floats_);
        }
        const f32x16 sum = simd::set1(simd::reduce_add(simd::load(state + sum_at)));
        for (int64_t d = output_at; d < state_floats_; d += lanes)
            simd::store(state + d, simd::add(simd::div(simd::load(state + d), sum), simd::zero()));
        std::copy_n(state + output_at, shape_.dim_v,
                    f32_row(o_, tile.begin + r / group_) + head_of(head, r) * shape_.dim_v);
    }
}

std::unique_ptr<Op> make_attention(const OpSpec& spec) {
    spec.expect(1, 1, {0, 1});
    const Buffer &q = spec.input(0), &o = spec.output(0);
    const AttentionParameters p(spec);
    const int64_t n_head = p.n_head, n_head_kv = p.n_head_kv;
    for (const Buffer* b : {&q, &o}) {
        expect_kind(spec, *b, Kind::f32);
        expect_rows(spec, *b, Rows::tokens);
    }
    expect_heads(spec, q, n_head, p.head_dim);
    expect_heads(spec, o, n_head, p.dim_v);
    if (n_head_kv < 1 || n_head % n_head_kv != 0)
        spec.fail({"n_head_kv: found ", n_head_kv, ", expected a divisor of n_head, ", n_head});
    if (p.state < 0) spec.fail({"state: found ", p.state});
    expect_range(p.window, 0, most_elements, {"operation '", spec.op, "': window"});
    if (p.chunked && !(p.window > 0 && p.causal)) spec.fail({"chunks need a window, and causal attention"});
    const auto slopes = static_cast<int64_t>(p.slopes.size());
    if (slopes != 0 && slopes != n_head) spec.fail({"found ", slopes, " slopes, expected ", n_head});
    if (!(p.cap >= 0.0 && std::isfinite(p.cap))) spec.fail({"cap: expected a finite number, 0 or more"});
    AttentionShape shape{{spec.op, p.state, n_head_kv, n_head_kv * p.head_dim, n_head_kv * p.dim_v},
                         n_head,
                         n_head_kv,
                         p.head_dim,
                         p.dim_v,
                         static_cast<float>(p.scale),
                         static_cast<float>(p.cap),
                         p.window,
                         p.chunked,
                         p.causal,
                         {p.slopes.begin(), p.slopes.end()}};
    if (const Weight* sinks = spec.weight(0)) shape.sinks = vector_weight(spec, *sinks, n_head);
    return std::make_unique<PagedAttention>(spec, std::move(shape), prepared_bytes(p.head_dim, p.dim_v));
}

}  // namespace clarion
