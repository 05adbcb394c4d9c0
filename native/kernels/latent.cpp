// Latent attention (DeepSeek-AI, 2024, DeepSeek-V2): a position has one row, which is the key of all heads, and whose first
// dim_v elements are their value. It is attention with as many query heads to one head of keys, but for the values: a
// page has its rows as keys, 16 positions in the lanes of a vector (machine/kv_format.h), and products with values want 16
// dims there. So they are transposed, once for a page and all queries of a tile, which read it together.
//
// Of a page of 64 positions, with dim 576, dim_v 512 and h heads:
//
//     read        73 KB in f16, which are 4 to 8 us of one core's bandwidth
//     transposed  131 KB in float32: 128 blocks of 16 x 16, each 16 stores and 64 loads and 80 shuffles: some 3 us
//     products    h * 64 * (576 + 512), 70 k for each head: 16 heads take 20 us at 16 products a cycle
//
// So even one token is bound by products, not by memory, and what makes floats of the page and transposes it costs a sixth of
// them with 16 heads, and one in twenty with the 64 queries of a tile. Measured on one core of a 2-core Zen 4, depth 4096,
// G products/s in f16 (q8_0): 39 (50) with 16 heads and a token, 48 (50) with 128 heads, or with a prompt of 64 tokens and
// either; attention to keys and values of 128 dims has 34 (46) with 16 heads and a token, and 46 (50) with a prompt.
#include <algorithm>

#include "kernels/attention.h"
#include "kernels/kv_store.h"
#include "kernels/rows.h"
#include "machine/checked.h"
#include "operations.h"
#include "simd/simd.h"

namespace clarion {

namespace {

constexpr int64_t lanes = simd::lanes, line = 64;

// Heads that read a page together; more than these would not fit the second-level cache with their sums.
constexpr int64_t most_heads = 64;

// Queries for which `prepare` makes floats of 16 bits.
constexpr int64_t least_widened = 5;

int64_t key_bytes(int64_t dim) { return prepared_bytes(dim, 0); }

// Keys [64/16][dim][16 positions] to values [dim_v/16][64][16 dims]. Dims beyond the row are zero.
void transpose_floats(const PageMatrix& keys, int64_t dim_v, float* out) {
    const auto* in = reinterpret_cast<const float*>(keys.data);
    for (int64_t group = 0; group < kv_page / lanes; ++group, in += keys.dim * lanes)
        for (int64_t d = 0; d < dim_v; d += lanes) {
            const float* block = in + d * lanes;
            float rest[lanes * lanes] = {};
            if (keys.dim - d < lanes) {
                std::copy_n(block, (keys.dim - d) * lanes, rest);
                block = rest;
            }
            float* to = out + d * kv_page + group * lanes * lanes;
            for (int64_t four = 0; four < 4; ++four, to += 4 * lanes) {
                simd::u8x64 dims[4];  // of four positions
                simd::transpose_16({reinterpret_cast<const uint8_t*>(block), line}, 16 * four, dims);
                for (int64_t i = 0; i < 4; ++i) simd::store_bytes(to + i * lanes, dims[i]);
            }
        }
}

using Bytes16 [[gnu::vector_size(16)]] = uint8_t;

// Bytes of keys [64/16][dim/32][8][16 positions][4 dims] to those of values [dim_v/16][64/4][16 dims][4 positions], and
// scales [64/16][dim/32][16] to [dim_v/32][64].
void transpose_integers(const PageMatrix& keys, int64_t dim_v, std::byte* out) {
    const int64_t blocks = kv_blocks(keys.dim), bytes = kv_block * lanes;
    const std::byte* scales = keys.data;
    const std::byte* in = keys.data + kv_scale_bytes(keys.dim);
    std::byte* to = out + kv_scale_bytes(dim_v);
    for (int64_t group = 0; group < kv_page / lanes; ++group)
        for (int64_t b = 0; b < kv_blocks(dim_v); ++b) {
            std::copy_n(scales + (group * blocks + b) * 2 * lanes, 2 * lanes,
                        out + 2 * (b * kv_page + group * lanes));
            const std::byte* from = in + (group * blocks + b) * bytes;
            for (int64_t half = 0; half < 2; ++half)
                for (int64_t v = 0; v < 4; ++v)
                    for (int64_t quad = 0; quad < 4; ++quad, from += 16) {
                        Bytes16 x;
                        std::memcpy(&x, from, 16);
                        x = __builtin_shufflevector(x, x, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11,
                                                    15);
                        std::memcpy(to + ((2 * b + half) * lanes + 4 * group + quad) * line + 16 * v, &x, 16);
                    }
        }
}

class LatentAttention final : public PagedAttention {
  public:
    LatentAttention(const OpSpec& spec, AttentionShape shape)
        : PagedAttention(spec, shape, key_bytes(shape.dim_k) + prepared_bytes(0, shape.dim_v)) {}

  private:
    PageMatrix prepare_keys(const PageMatrix& keys, int64_t queries, std::byte* scratch) const override {
        return prepare(keys, false, std::max(queries, least_widened), scratch);
    }

    PageMatrix prepare_values(const PageMatrix& keys, const PageMatrix& values, int64_t,
                              std::byte* scratch) const override {
        std::byte* out = scratch + key_bytes(keys.dim);
        if (is_integer(keys.format))
            transpose_integers(keys, values.dim, out);
        else
            transpose_floats(keys, values.dim, reinterpret_cast<float*>(out));
        return {keys.format, out, values.dim, nullptr, 0};
    }
};

class LatentWrite final : public RowOp {
  public:
    LatentWrite(const Buffer& rows, CacheUse use)
        : RowOp(rows, rows.width), rows_(rows), use_(std::move(use)) {}

    void validate(const Batch& batch) const override { use_.check(batch); }

  private:
    void run_row(const Batch& batch, int64_t row, const Scratch&) override {
        const PagedState state = batch.paged(use_.state);
        const TokenSlot place(batch, state, row);
        store_keys(state.cache->formats().keys, state.cache->keys(state.layer, place.page, 0), rows_.width,
                   place.slot, f32_row(rows_, row));
    }

    const Buffer& rows_;
    CacheUse use_;
};

// Rows of a state, which has one head of keys and no values.
CacheUse rows_of(const OpSpec& spec, int64_t state, int64_t dim) {
    if (state < 0) spec.fail({"state: found ", state});
    return {spec.op, state, 1, dim, 0};
}

}  // namespace

std::unique_ptr<Op> make_latent_write(const OpSpec& spec) {
    spec.expect(1, 0, 0);
    const Buffer& rows = spec.input(0);
    expect_kind(spec, rows, Kind::f32);
    expect_rows(spec, rows, Rows::tokens);
    return std::make_unique<LatentWrite>(rows, rows_of(spec, LatentWriteParameters(spec).state, rows.width));
}

std::unique_ptr<Op> make_latent_attention(const OpSpec& spec) {
    spec.expect(1, 1, 0);
    const Buffer &q = spec.input(0), &o = spec.output(0);
    const LatentAttentionParameters p(spec);
    for (const Buffer* b : {&q, &o}) {
        expect_kind(spec, *b, Kind::f32);
        expect_rows(spec, *b, Rows::tokens);
    }
    expect_heads(spec, q, p.n_head, p.dim);
    expect_heads(spec, o, p.n_head, p.dim_v);
    expect_range(p.dim_v, 1, p.dim, {"operation '", spec.op, "': dim_v"});
    int64_t groups = (p.n_head + most_heads - 1) / most_heads;
    while (p.n_head % groups != 0) ++groups;
    return std::make_unique<LatentAttention>(
        spec, AttentionShape{rows_of(spec, p.state, p.dim), p.n_head, groups, p.dim, p.dim_v,
                             static_cast<float>(p.scale)});
}

}  // namespace clarion
