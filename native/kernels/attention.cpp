// Softmax attention over the pages of the cache (Vaswani et al. 2017), with a running maximum (Milakov and
// Gimelshein 2018), grouped queries (Ainslie et al. 2023) and an optional sliding window.
//
// An item is a tile: some tokens of one sequence that stand next to each other in the batch, times some heads
// of the cache. All queries of a tile that use the same head of the cache read it together, a page of 64
// positions at a time:
//
//     scores  s[query][64]  = sum over d of        q[query][d] * K[d][64]        lanes are positions
//     softmax p[query][64]  = exp(s - max so far); earlier sums are scaled down where the maximum grew
//     output  o[query][dim] += sum over position of p[query][position] * V[position][dim]     lanes are dims
//
// Both products are one loop (`accumulate`): some queries times some vectors in registers, running down a
// matrix of vectors in memory. For 8 queries x 2 vectors that is 16 sums, and 2 loads and 8 broadcasts for 16
// multiplies.
//
// A query's own additions never depend on its company: pages come in order from the one that holds its first
// position, every sum starts at its own first position and ends at its last, and positions that a query must
// not see are not added as zeros but left out (they may hold anything). So results are the same bits alone
// and in a batch.
#include <algorithm>
#include <limits>
#include <vector>

#include "formats/format.h"
#include "kernels/kv.h"
#include "kernels/lanes.h"
#include "kernels/ops.h"
#include "kernels/rows.h"
#include "machine/kv_cache.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using simd::f32x16;

constexpr int64_t lanes = simd::lanes, page_size = KvCache::page_size;

// Queries that share each load: 8 where there are 32 vector registers, otherwise 4.
constexpr int most_queries = simd::tile_f32 >= 8 ? 8 : 4;

// Queries of one tile and one head of the cache. They amortise the conversion and the traffic of a page, and
// their own state (query, output, scores: some 300 floats each) should stay in the second-level cache.
constexpr int64_t tile_queries = 64;

// Products that an item should have at least, some 5 us of them; less work is not worth sharing out.
constexpr int64_t item_products = int64_t{1} << 18;

int64_t padded(int64_t n) { return (n + lanes - 1) / lanes * lanes; }

f32x16 load_lanes(const uint16_t* p) { return simd::load_f16(p); }
f32x16 load_lanes(const float* p) { return simd::load(p); }

// Rows of floats in scratch.
struct Matrix {
    float* data;
    int64_t stride;

    float* row(int64_t r) const { return data + r * stride; }
    Matrix from(int64_t r) const { return {row(r), stride}; }
};

// A matrix of the cache: columns of vectors. While it is read, `next` is fetched, which will be read after it: pages lie
// anywhere, and the processor cannot guess where.
struct Columns {
    const std::byte* data;
    const std::byte* next;
    int64_t length;  // of a column, in vectors
};

struct Range {
    int64_t from, to;
    bool empty() const { return from >= to; }
};

// sum[j][b] += sum over i in rows of w[j][i] * m[b][i], for Q rows of w and the B columns of m from `column`.
template <typename T, int Q, int B>
void accumulate(Matrix w, Columns m, int64_t column, Range rows, Matrix sum) {
    const int64_t stride = m.length * lanes;
    const T* data = reinterpret_cast<const T*>(m.data) + column * stride;
    const T* next = reinterpret_cast<const T*>(m.next) + column * stride;
    float* out = sum.data + column * lanes;
    f32x16 s[Q * B];
    unrolled<Q * B>([&]<int n>()
                        CLARION_INLINE { s[n] = simd::load(out + n / B * sum.stride + n % B * lanes); });
    for (int64_t i = rows.from; i < rows.to; ++i) {
        f32x16 v[B];
        unrolled<B>([&]<int b>() CLARION_INLINE {
            v[b] = load_lanes(data + b * stride + i * lanes);
            simd::prefetch(next + b * stride + i * lanes);
        });
        unrolled<Q>([&]<int j>() CLARION_INLINE {
            const f32x16 x = simd::set1(w.data[j * w.stride + i]);
            unrolled<B>([&]<int b>() CLARION_INLINE { s[j * B + b] = simd::fma(x, v[b], s[j * B + b]); });
        });
    }
    unrolled<Q * B>([&]<int n>()
                        CLARION_INLINE { simd::store(out + n / B * sum.stride + n % B * lanes, s[n]); });
}

// The same for a range of columns. One query takes four at a time, for enough independent sums.
template <typename T, int Q>
void accumulate_columns(Matrix w, Columns m, Range columns, Range rows, Matrix sum) {
    constexpr int B = Q == 1 ? 4 : most_queries / 4;
    int64_t b = columns.from;
    for (; b + B <= columns.to; b += B) accumulate<T, Q, B>(w, m, b, rows, sum);
    if constexpr (B > 1)
        for (; b < columns.to; ++b) accumulate<T, Q, 1>(w, m, b, rows, sum);
}

// For each number of queries that a block can have, and each kind of cache.
using Accumulate = void (*)(Matrix w, Columns m, Range columns, Range rows, Matrix sum);
struct Block {
    int64_t queries;
    Accumulate f16, f32;

    Accumulate accumulate(KvCache::Store store) const { return store == KvCache::Store::f16 ? f16 : f32; }
};
constexpr Block one{1, accumulate_columns<uint16_t, 1>, accumulate_columns<float, 1>};
constexpr Block four{4, accumulate_columns<uint16_t, 4>, accumulate_columns<float, 4>};
constexpr Block most{most_queries, accumulate_columns<uint16_t, most_queries>,
                     accumulate_columns<float, most_queries>};

const Block& block_for(int64_t queries) { return queries > 4 ? most : queries > 1 ? four : one; }

// The positions that one query sees, and what it has seen so far.
struct Query {
    int64_t first, last;  // positions, last included
    float max;
    float sum[simd::lanes];
};

class Attention final : public Op {
  public:
    explicit Attention(const OpSpec& spec)
        : q_(spec.input(0)),
          o_(spec.output(0)),
          group_(spec.integer("n_head") / spec.integer("n_head_kv")),
          dim_k_(spec.integer("head_dim")),
          dim_v_(o_.width / spec.integer("n_head")),
          window_(spec.integer("window", 0)),
          scale_(static_cast<float>(spec.number("scale"))),
          use_{spec.op, spec.integer("layer"), spec.integer("n_head_kv"), q_.width / group_,
               o_.width / group_},
          tile_tokens_(std::max<int64_t>(1, tile_queries / group_)) {
        tiles_.reserve(static_cast<size_t>(spec.max_tokens));
    }

    void validate(const Batch& batch) const override { use_.check(batch); }

    size_t scratch_bytes() const override {
        return static_cast<size_t>(rows_for(tile_tokens_)) *
               (4 * static_cast<size_t>(row_floats()) + sizeof(Query));
    }

    int64_t begin(const Batch& batch) override {
        tiles_.clear();
        int64_t products = 0;
        for (int64_t t = 0; t < batch.n_tokens; ++t) {
            if (tiles_.empty() || t - tiles_.back() == tile_tokens_ ||
                batch.sequences[t] != batch.sequences[t - 1])
                tiles_.push_back(t);
            const int64_t p = batch.positions[t];
            products += (p + 1 - first_position(p)) * group_ * (dim_k_ + dim_v_);
        }
        const int64_t each = std::max<int64_t>(1, products / static_cast<int64_t>(tiles_.size()));
        heads_ = std::clamp<int64_t>((item_products + each - 1) / each, 1, use_.n_head);
        parts_ = (use_.n_head + heads_ - 1) / heads_;
        return static_cast<int64_t>(tiles_.size()) * parts_;
    }

    // The last tiles come first: in a prompt they are the longest, and the short ones then fill the gaps at
    // the end.
    void run(const Batch& batch, int64_t item, const Scratch& scratch) override {
        const auto tile = tiles_.size() - 1 - static_cast<size_t>(item / parts_);
        const int64_t begin = tiles_[tile],
                      end = tile + 1 < tiles_.size() ? tiles_[tile + 1] : batch.n_tokens;
        const int64_t head = item % parts_ * heads_, heads_end = std::min(head + heads_, use_.n_head);
        for (int64_t h = head; h < heads_end; ++h) run_head(batch, begin, end, h, scratch);
    }

  private:
    int64_t rows_for(int64_t tokens) const {
        return (tokens * group_ + most_queries - 1) / most_queries * most_queries;
    }
    int64_t row_floats() const { return padded(dim_k_) + padded(dim_v_) + page_size; }
    int64_t first_position(int64_t p) const {
        return window_ > 0 ? std::max<int64_t>(0, p - window_ + 1) : 0;
    }

    // The state of a tile, in scratch: one row for each query, and zeros up to whole blocks of queries.
    struct Tile {
        Query* query;
        Matrix q, o, s;
    };

    void run_head(const Batch& batch, int64_t begin, int64_t end, int64_t head, const Scratch& scratch) {
        const int64_t rows = rows_for(end - begin);
        Tile tile{};
        tile.query = reinterpret_cast<Query*>(scratch.data);
        tile.q = {reinterpret_cast<float*>(tile.query + rows), padded(dim_k_)};
        tile.o = {tile.q.row(rows), padded(dim_v_)};
        tile.s = {tile.o.row(rows), page_size};
        std::fill_n(tile.q.data, rows * row_floats(), 0.0f);

        int64_t first = batch.positions[begin], last = 0, n = 0;
        for (int64_t t = begin; t < end; ++t) {
            const int64_t p = batch.positions[t];
            first = std::min(first, first_position(p));
            last = std::max(last, p);
            const float* x = f32_row(q_, t) + head * group_ * dim_k_;
            for (int64_t g = 0; g < group_; ++g, ++n) {
                tile.query[n] = {first_position(p), p, -std::numeric_limits<float>::infinity(), {}};
                for (int64_t d = 0; d < dim_k_; d += lanes) {
                    const f32x16 scaled =
                        simd::mul(load_n(x + g * dim_k_ + d, dim_k_ - d), simd::set1(scale_));
                    simd::store(tile.q.row(n) + d, scaled);
                }
            }
        }

        const int32_t* pages = batch.pages + batch.sequences[begin] * batch.pages_per_sequence;
        const KvCache& cache = *batch.cache;
        const auto keys_of = [&](int64_t p) { return cache.keys(use_.layer, pages[p], head); };
        for (int64_t page = first / page_size; page <= last / page_size; ++page) {
            const std::byte* next = keys_of(std::min(page + 1, last / page_size));
            const Columns values{cache.values(use_.layer, pages[page], head), next, page_size};
            const Columns keys{keys_of(page), values.data, dim_k_};
            for (int64_t r = 0; r < n;) {
                const Block& block = block_for(n - r);
                run_page(tile, r, std::min(n - r, block.queries), block, cache.store(), page, keys, values);
                r += block.queries;
            }
        }

        for (int64_t r = 0; r < n; ++r) {
            const f32x16 sum = simd::set1(simd::reduce_add(simd::load(tile.query[r].sum)));
            float* o = tile.o.row(r);
            for (int64_t d = 0; d < dim_v_; d += lanes) simd::store(o + d, simd::div(simd::load(o + d), sum));
            std::copy_n(o, dim_v_, f32_row(o_, begin + r / group_) + (head * group_ + r % group_) * dim_v_);
        }
    }

    // One page for the n queries from row r, which are one block.
    void run_page(const Tile& tile, int64_t r, int64_t n, const Block& block, KvCache::Store store,
                  int64_t page, const Columns& keys, const Columns& values) {
        Range range[most_queries];  // what each sees of the page
        Range all{0, page_size}, any{page_size, 0};
        for (int64_t j = 0; j < n; ++j) {
            const Query& query = tile.query[r + j];
            range[j].from = std::max<int64_t>(0, query.first - page * page_size);
            range[j].to = std::min(page_size, query.last + 1 - page * page_size);
            all = {std::max(all.from, range[j].from), std::min(all.to, range[j].to)};
            if (!range[j].empty()) any = {std::min(any.from, range[j].from), std::max(any.to, range[j].to)};
        }
        if (any.empty()) return;

        const Matrix s = tile.s.from(r), o = tile.o.from(r);
        std::fill_n(s.data, block.queries * page_size, 0.0f);
        const Range positions{any.from / lanes, (any.to + lanes - 1) / lanes}, dims{0, o.stride / lanes};
        block.accumulate(store)(tile.q.from(r), keys, positions, {0, dim_k_}, s);
        for (int64_t j = 0; j < n; ++j)
            if (!range[j].empty()) softmax(tile, r + j, range[j]);

        // Positions that all see are added for all at once, those before and after them for each query alone.
        const auto alone = [&](int64_t j, Range rows) {
            if (!rows.empty()) one.accumulate(store)(s.from(j), values, dims, rows, o.from(j));
        };
        if (all.empty()) all = {page_size, page_size};
        for (int64_t j = 0; j < n; ++j) alone(j, {range[j].from, std::min(range[j].to, all.from)});
        if (!all.empty()) block.accumulate(store)(s, values, dims, all, o);
        for (int64_t j = 0; j < n; ++j) alone(j, {std::max(range[j].from, all.to), range[j].to});
    }

    // Scores to weights for one query and one page; outside the range they are zero.
    void softmax(const Tile& tile, int64_t row, Range range) {
        constexpr float lowest = -std::numeric_limits<float>::infinity();
        Query& query = tile.query[row];
        float* s = tile.s.row(row);
        std::fill(s, s + range.from, lowest);
        std::fill(s + range.to, s + page_size, lowest);
        f32x16 max = simd::load(s);
        for (int64_t i = lanes; i < page_size; i += lanes) max = simd::max(max, simd::load(s + i));
        const float highest = std::max(query.max, simd::reduce_max(max));
        f32x16 sum = simd::load(query.sum);
        if (highest != query.max) {
            const f32x16 factor = simd::exp(simd::set1(query.max - highest));
            sum = simd::mul(sum, factor);
            float* o = tile.o.row(row);
            for (int64_t d = 0; d < tile.o.stride; d += lanes)
                simd::store(o + d, simd::mul(simd::load(o + d), factor));
            query.max = highest;
        }
        for (int64_t i = 0; i < page_size; i += lanes) {
            const f32x16 p = simd::exp(simd::sub(simd::load(s + i), simd::set1(highest)));
            simd::store(s + i, p);
            sum = simd::add(sum, p);
        }
        simd::store(query.sum, sum);
    }

    const Buffer &q_, &o_;
    int64_t group_, dim_k_, dim_v_, window_;
    float scale_;
    CacheUse use_;
    int64_t tile_tokens_;
    // Of the batch:
    std::vector<int64_t> tiles_;  // the first token of each tile
    int64_t heads_ = 1, parts_ = 1;
};

}  // namespace

std::unique_ptr<Op> make_attention(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const Buffer &q = spec.input(0), &o = spec.output(0);
    const int64_t n_head = spec.integer("n_head"), n_head_kv = spec.integer("n_head_kv");
    for (const Buffer* b : {&q, &o}) {
        expect_kind(spec, *b, Kind::f32);
        expect_rows(spec, *b, Rows::tokens);
    }
    expect_heads(spec, q, n_head, spec.integer("head_dim"));
    if (n_head_kv < 1 || n_head % n_head_kv != 0)
        spec.fail({"n_head_kv: found ", n_head_kv, ", expected a divisor of n_head, ", n_head});
    if (o.width % n_head != 0) expect_heads(spec, o, n_head, o.width / n_head);
    if (spec.integer("window", 0) < 0 || spec.integer("layer") < 0)
        spec.fail({"layer and window cannot be negative"});
    return std::make_unique<Attention>(spec);
}

}  // namespace clarion
