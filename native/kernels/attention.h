// Softmax attention over the pages of the cache (Vaswani et al. 2017), with a running maximum (Milakov and
// Gimelshein 2018), grouped queries (Ainslie et al. 2023), windows, and further terms of the scores.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "kernels/kv.h"
#include "kernels/kv_products.h"
#include "machine/memory.h"

namespace clarion {

// What attention computes; the operation table has the definition.
struct AttentionShape {
    CacheUse use;
    int64_t n_head, n_head_kv;  // heads of queries; groups of them that share keys
    int64_t dim_k, dim_v;
    float scale;
    float cap = 0.0f;  // 0: none
    int64_t window = 0;
    bool chunked = false, causal = true;
    std::vector<float> slopes = {}, sinks = {};  // of each head of queries, or none
};

// The positions that one query sees, the last included, and its own.
struct Query {
    int64_t position, first, last;

    // Of `size` positions from `begin` on.
    Range of(int64_t begin, int64_t size) const {
        return {std::clamp<int64_t>(first - begin, 0, size), std::clamp<int64_t>(last + 1 - begin, 0, size)};
    }
};

class PagedAttention : public Op {
  public:
    // `prepared`: bytes of scratch that a page's keys and values take while they are multiplied.
    PagedAttention(const OpSpec& spec, AttentionShape shape, int64_t prepared);

    void validate(const Batch& batch) const override { shape_.use.check(batch); }
    size_t scratch_bytes() const override;
    int64_t begin(const Batch& batch) override;
    void run(const Batch& batch, int64_t item, const Scratch& scratch) override;

  protected:
    // A page's keys as some queries multiply them, and after that its values; `keys` are what the first returned. Both may
    // use all of the scratch.
    virtual PageMatrix prepare_keys(const PageMatrix& keys, int64_t queries, std::byte* scratch) const;
    virtual PageMatrix prepare_values(const PageMatrix& keys, const PageMatrix& values, int64_t queries,
                                      std::byte* scratch) const;

  private:
    // A tile's state, in scratch: one row for each query, and zeros up to whole blocks of queries.
    struct QueryTile {
        int64_t begin, n, first, last;  // its first token, queries, and positions that any of them sees
        std::byte* prepared;
        Query* query;
        Matrix q, s, state, span;
        Encoded queries, weights;  // weights of one block of queries
    };

    int64_t rows_for(int64_t tokens) const;
    int64_t head_of(int64_t head, int64_t row) const { return head * group_ + row % group_; }
    void find_ends(const Batch& batch);
    Query query_of(const Batch& batch, int64_t token) const;
    Matrix shared(int64_t tile, int64_t head, int64_t span) const;
    QueryTile make_tile(const Batch& batch, int64_t index, const Scratch& scratch) const;
    void load_queries(const QueryTile& tile, int64_t head) const;
    void run_span(const Batch& batch, const QueryTile& tile, int64_t head, int64_t span, Matrix kept) const;
    void absorb(const QueryTile& tile, int64_t span, Matrix states) const;
    void run_page(const QueryTile& tile, int64_t head, int64_t page, PageMatrix keys,
                  PageMatrix values) const;
    void add_page_scores(const QueryTile& tile, const PageMatrix& keys, Range vectors) const;
    void softmax(float* s, Range range, float* state) const;
    void add_float_values(const QueryTile& tile, int64_t begin, const PageMatrix& values) const;
    void add_integer_values(const QueryTile& tile, int64_t begin, const PageMatrix& values) const;
    void finish(const QueryTile& tile, int64_t head) const;

    const Buffer &q_, &o_;
    const AttentionShape shape_;
    const int64_t group_, prepared_, threads_, tile_tokens_;
    const int64_t state_floats_, most_states_;
    ZeroMemory states_;                             // of spans that are items
    std::vector<std::atomic<int32_t>> unfinished_;  // spans of a tile and some heads
    // Of the batch:
    std::vector<int64_t> tiles_;   // the first token of each tile, and the end
    std::vector<int64_t> places_;  // sequence and position of each token, in order
    std::vector<int32_t> ends_;    // the last position of each token's sequence
    int64_t rows_per_tile_ = 0, first_span_ = 0, spans_ = 1, heads_ = 1, shares_ = 1;
};

}  // namespace clarion
