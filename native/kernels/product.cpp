#include "kernels/product.h"

#include <algorithm>

#include "formats/bf16.h"
#include "kernels/activations.h"
#include "kernels/float_product.h"
#include "kernels/octets.h"
#include "kernels/panel.h"
#include "kernels/row_decoder.h"
#include "simd/simd.h"
#include "simd/tile.h"

namespace clarion {

namespace {

static_assert(most_tile_columns == simd::TileProduct::most_columns);

struct Scratch16 {
    alignas(64) uint8_t panel[most_panel_bytes];
    alignas(64) uint8_t u[16 * most_tile_columns];
    alignas(64) float scale[most_tile_columns];  // [cols/group][16], group >= 16
    alignas(64) float neg_min[most_tile_columns];
    union {
        alignas(64) float weights[16 * most_tile_columns];
        FloatScratch floats;
    };
    alignas(64) float sums[16 * most_tokens];
    alignas(64) float upper[16 * most_tokens];  // of octets, for each token that has some
};

// Fetches some bytes ahead, a share of them with each token. A burst would fill the miss buffers, and the processor would
// drop most of it.
struct SpreadFetch {
    Fetch from;
    int64_t per_token;  // 2^16ths of a byte, rounded up: most_tokens of those are less than a byte
    bool once;          // where multiplying leaves the memory idle, no fetch is dropped

    SpreadFetch(const Fetch& from, int64_t bytes, int64_t n_tokens, bool once)
        : from(from), per_token(((bytes << 16) + n_tokens - 1) / n_tokens), once(once) {}

    [[gnu::noinline]] void tokens(int64_t first, int64_t end) const {
        __asm__ volatile("");  // or calls of it, which only fetch, would look useless
        for (int64_t at = ((per_token * first >> 16) + 63) / 64 * 64; at < per_token * end >> 16; at += 64)
            if (once)
                simd::prefetch(from.last + at);
            else
                from.line(at);
    }
};

// Integer products of a tile with N tokens: columns first .. first+n-1 of the activations.
//
// Roofline, AVX-512 VNNI on one thread of a Zen 4, where one multiply of 512 bits begins in a cycle (235 G products of bytes/s).
// 16 rows and 32 columns take, for each token, 8 vpdpbusd with activations of 8 bits and 16 with 16 bits, and 2 multiplies of
// floats; 1 more where a format has minima, 1 more where scales cover 16 columns. Loads: a weight for N tokens, and a quad with each
// vpdpbusd; two of these fit a cycle. So products bound it, at 73% (Q4_K, 8 bits: 8 of 11) and 84% of that (16 of 19), which are
// 171 and 99 G/s; for Q6_K 73% and 84% of it, too. Measured with 256 tokens, decoding and copies included: 138 and 83 (Q4_K), 124
// and 77 G/s (Q6_K), on 2026-11-21.
template <typename Accumulator, int group, int N>
void dot_tile(const Format& format, const Tile& tile, int64_t first, int64_t n, const EncodedLayout& layout,
              const std::byte* const* rows, float* sums) {
    constexpr int groups = activation_block / group;
    simd::f32x16 total[N];
    unrolled<N>([&]<int t>() CLARION_INLINE { total[t] = simd::load(sums + 16 * t); });
    const int32_t unbias = Accumulator::bias - format.offset;
    const int64_t sums_at = layout.sum(group);
    const int64_t fsums_at = layout.fsum(group);
    const uint8_t* u = tile.u;
    for (int64_t g = 0; g < n / group; g += groups) {
        const int64_t column = first + g * group;
        simd::f32x16 sum[N];
        unrolled<groups>([&]<int h>() CLARION_INLINE {
            Accumulator acc[N];
            unrolled<N>([&]<int t>() CLARION_INLINE {
                int32_t a_sum = 0;
                if (unbias != 0)
                    a_sum = reinterpret_cast<const int32_t*>(rows[t] + sums_at)[column / group + h];
                acc[t] = Accumulator::start(unbias * a_sum);
            });
            const int64_t quads = column / 4 * Accumulator::quad_bytes;
            steps<group / 8>([&](auto q) CLARION_INLINE {
                const int at = h * group / 4 + 2 * q;
                const simd::u8x64 w0 = simd::load_bytes(u + 64 * at), w1 = simd::load_bytes(u + 64 * at + 64);
                unrolled<N>([&]<int t>() CLARION_INLINE {
                    const auto* row = reinterpret_cast<const uint8_t*>(rows[t]) + quads;
                    acc[t].dot2(w0, w1, row + at * Accumulator::quad_bytes);
                });
            });
            const simd::f32x16 scale = simd::load(tile.scale + 16 * (g + h));
            unrolled<N>([&]<int t>() CLARION_INLINE {
                const simd::f32x16 x = simd::to_f32(acc[t].total());
                const simd::f32x16 a_scale = simd::set1(
                    reinterpret_cast<const float*>(rows[t] + layout.scale)[column / activation_block]);
                if constexpr (groups == 1)
                    total[t] = simd::fma(x, simd::mul(scale, a_scale), total[t]);
                else if constexpr (h == 0)
                    sum[t] = simd::mul(x, scale);
                else
                    total[t] = simd::fma(simd::fma(x, scale, sum[t]), a_scale, total[t]);
            });
        });
        u += 16 * activation_block;
        if (format.has_min)
            for (int h = 0; h < groups; ++h) {
                const simd::f32x16 neg_min = simd::load(tile.neg_min + 16 * (g + h));
                unrolled<N>([&]<int t>() CLARION_INLINE {
                    const float fsum = reinterpret_cast<const float*>(rows[t] + fsums_at)[column / group + h];
                    total[t] = simd::fma(neg_min, simd::set1(fsum), total[t]);
                });
            }
    }
    unrolled<N>([&]<int t>() CLARION_INLINE { simd::store(sums + 16 * t, total[t]); });
}

// The same for one token, as a loop over groups: it shares no load of weights with another.
template <typename Accumulator, int group>
void dot_one(const Format& format, const Tile& tile, int64_t first, int64_t n, const EncodedLayout& layout,
             const std::byte* const* rows, float* sums) {
    const std::byte* row = rows[0];
    constexpr int groups = activation_block / group;
    const int64_t a_g = first / group;
    const auto* quads = reinterpret_cast<const uint8_t*>(row) + first / 4 * Accumulator::quad_bytes;
    const auto* a_scale = reinterpret_cast<const float*>(row + layout.scale) + first / activation_block;
    const auto* a_sum = reinterpret_cast<const int32_t*>(row + layout.sum(group)) + a_g;
    const auto* a_fsum = reinterpret_cast<const float*>(row + layout.fsum(group)) + a_g;
    const int32_t unbias = Accumulator::bias - format.offset;
    const uint8_t* u = tile.u;
    simd::f32x16 total = simd::load(sums);
    for (int64_t g = 0; g < n / group; ++a_scale) {
        simd::f32x16 sum = simd::zero();
        const simd::f32x16 by = simd::set1(*a_scale);
        for (int64_t h = g; h < g + groups; ++h) {
            auto acc = Accumulator::start(unbias * a_sum[h]);
            steps<group / 8>([&](auto q) CLARION_INLINE {
                acc.dot2(simd::load_bytes(u + 128 * q), simd::load_bytes(u + 128 * q + 64),
                         quads + 2 * q * Accumulator::quad_bytes);
            });
            u += 16 * group;
            quads += group / 4 * Accumulator::quad_bytes;
            const simd::f32x16 x = simd::to_f32(acc.total()), scale = simd::load(tile.scale + 16 * h);
            if (groups == 1)
                total = simd::fma(x, simd::mul(scale, by), total);
            else
                sum = simd::fma(x, scale, sum);
        }
        if (groups != 1) total = simd::fma(sum, by, total);
        for (const int64_t end = g + groups; g < end; ++g)
            if (format.has_min)
                total = simd::fma(simd::load(tile.neg_min + 16 * g), simd::set1(a_fsum[g]), total);
    }
    simd::store(sums, total);
}

// Float products of a tile with N tokens: sums over 32 columns, added in order.
template <int N>
void dot_tile_f32(const float* weights, int64_t first, int64_t n, const std::byte* const* rows, float* sums) {
    simd::f32x16 total[N];
    unrolled<N>([&]<int t>() CLARION_INLINE { total[t] = simd::load(sums + 16 * t); });
    for (int64_t k = 0; k < n; k += 32) {
        simd::f32x16 acc[N];
        unrolled<N>([&]<int t>() CLARION_INLINE { acc[t] = simd::zero(); });
        for (int64_t column = k; column < k + 32; ++column) {
            const simd::f32x16 w = simd::load(weights + 16 * column);
            unrolled<N>([&]<int t>() CLARION_INLINE {
                const float x = reinterpret_cast<const float*>(rows[t])[first + column];
                acc[t] = simd::fma(w, simd::set1(x), acc[t]);
            });
        }
        unrolled<N>([&]<int t>() CLARION_INLINE { total[t] = simd::add(total[t], acc[t]); });
    }
    unrolled<N>([&]<int t>() CLARION_INLINE { simd::store(sums + 16 * t, total[t]); });
}

// Calls dot<M> for M = N, 4 and 1 until all tokens are done.
template <int N, typename Dot>
void over_tokens(int64_t n_tokens, int64_t done, const Dot& dot) {
    for (; done + N <= n_tokens; done += N) dot.template operator()<N>(done);
    if constexpr (N > 4)
        over_tokens<4>(n_tokens, done, dot);
    else if constexpr (N > 1)
        over_tokens<1>(n_tokens, done, dot);
}

// The tokens that simd/tile.h takes, where the instruction set has such products.
template <typename Element, typename Product>
int64_t multiply_whole_tile(const Product& product, const SpreadFetch& fetch) {
    constexpr std::type_identity<Element> element;
    if constexpr (requires { multiply_tile(product, fetch, element); }) {
        return multiply_tile(product, fetch, element);
    } else if constexpr (requires { multiply_tile(product, element); }) {
        const int64_t done = multiply_tile(product, element);
        fetch.tokens(0, done);
        return done;
    } else {
        return 0;
    }
}

// dot_tile for so many tokens, for what is left of them, and for the last ones.
struct Dot {
    int tokens;
    void (*dot)(const Format&, const Tile&, int64_t first, int64_t n, const EncodedLayout&,
                const std::byte* const* rows, float* sums);
};
template <typename Accumulator, int group, int N>
constexpr Dot dot_of() {
    if constexpr (N == 1)
        return {N, dot_one<Accumulator, group>};
    else
        return {N, dot_tile<Accumulator, group, N>};
}
template <typename Accumulator, int group, int N>
constexpr Dot dots[] = {dot_of<Accumulator, group, N>(), dot_of<Accumulator, group, N <= 4 ? 1 : 4>(),
                        dot_of<Accumulator, group, 1>()};

template <typename Accumulator, int N>
[[gnu::noinline]] void dot_tokens(const Format& format, const Tile& tile, int64_t first, int64_t n,
                                  const EncodedLayout& layout, const std::byte* const* rows, int64_t n_tokens,
                                  const SpreadFetch& fetch, float* sums) {
    const int64_t done = multiply_whole_tile<Accumulator>(
        simd::TileProduct{
            .u = tile.u,
            .scale = tile.scale,
            .neg_min = format.has_min ? tile.neg_min : nullptr,
            .columns = n,
            .group = format.group,
            .offset = format.offset,
            .largest = format.largest,
            .quads = first / 4 * Accumulator::quad_bytes,
            .a_scale = layout.scale + first / 32 * 4,
            .a_sum = layout.sum(format.group) + first / format.group * 4,
            .a_fsum = layout.fsum(format.group) + first / format.group * 4,
            .tokens = rows,
            .n_tokens = n_tokens,
            .sums = sums,
        },
        fetch);
    // Two groups of 16 have a sum in between, for which so many tokens have no registers.
    constexpr int fewer = takes_registers<Accumulator> ? 1 : N >= 12 ? 8 : std::min(N, 4);
    int64_t t = done;
    for (const auto& [tokens, dot] :
         format.group == 32 ? dots<Accumulator, 32, N> : dots<Accumulator, 16, fewer>)
        for (; t + tokens <= n_tokens; t += tokens) {
            fetch.tokens(t, t + tokens);
            dot(format, tile, first, n, layout, rows + t, sums + 16 * t);
        }
}

// The weights of an integer tile as floats, rounded as dequantize rounds them.
void tile_to_f32(const Format& format, const Tile& tile, int64_t n, float* weights) {
    const simd::i32x16 offset = simd::set1(format.offset);
    for (int64_t k = 0; k < n; k += 4) {
        const simd::f32x16 scale = simd::load(tile.scale + k / format.group * 16);
        const simd::f32x16 neg_min =
            format.has_min ? simd::load(tile.neg_min + k / format.group * 16) : simd::zero();
        const simd::i32x16 u = simd::as_i32(simd::load_bytes(tile.u + 16 * k));
        const simd::i32x16 bytes[4] = {byte_of<0>(u), byte_of<1>(u), byte_of<2>(u), byte_of<3>(u)};
        for (int j = 0; j < 4; ++j) {
            const simd::f32x16 q = simd::to_f32(simd::sub(bytes[j], offset));
            simd::store(weights + 16 * (k + j), simd::add(simd::mul(scale, q), neg_min));
        }
    }
}

// Adds products of octets with a tile, whose first column is `first`.
[[gnu::noinline]] void multiply_octets(const Format& format, const Tile& tile, int64_t first,
                                       const Octet* octet, const Octet* end, float* upper) {
    using Accumulator = simd::high_accumulator;
    const int32_t unbias = Accumulator::bias - format.offset;
    const int64_t per_group = format.group / 8;
    for (; octet != end; ++octet) {
        const int64_t at = octet->place - first / 8;
        const uint8_t* u = tile.u + 128 * at;
        auto acc = Accumulator::start(unbias * octet->sum);
        acc.dot2(simd::load_bytes(u), simd::load_bytes(u + 64), octet->quads);
        const simd::f32x16 scale = simd::load(tile.scale + 16 * (at / per_group));
        float* sum = upper + 16 * octet->token;
        simd::store(sum, simd::fma(simd::to_f32(acc.total()), simd::mul(scale, simd::set1(octet->scale)),
                                   simd::load(sum)));
    }
}

// The same for one token, whose weights no tile has: their blocks are decoded once more.
void multiply_octets_of_one(const Format& format, const uint8_t* panel, int64_t first, int64_t n,
                            const OctetList& octets, const Tile& tile, float* upper) {
    const Octet* end = octets.end_at(first + n);
    for (const Octet* octet = octets.begin_at(first); octet != end; ++octet) {
        const int64_t block = (8 * octet->place - first) / format.block;
        format.decode_panel(panel + 16 * block * format.bytes, 1, tile);
        multiply_octets(format, tile, first + block * format.block, octet, octet + 1, upper);
    }
}

void add_upper(const OctetList& octets, const float* upper, float* sums) {
    for (int64_t i = 0; i < octets.n_tokens; ++i) {
        float* sum = sums + 16 * octets.tokens[i];
        simd::store(sum, simd::add(simd::load(sum), simd::load(upper + 16 * i)));
    }
}

// BF16 weights as they are, where the instruction set multiplies them so.
template <typename Fetch>
constexpr bool has_bf16 = requires(simd::Rows16 rows, const std::byte* const* tokens, const Fetch& fetch,
                                   float* sums) { multiply_bf16(rows, 0, tokens, 0, fetch, sums); };

template <typename Fetch>
void multiply_pairs(simd::Rows16 rows, int64_t n_cols, const std::byte* const* tokens, int64_t n_tokens,
                    const Fetch& fetch, float* sums) {
    if constexpr (has_bf16<Fetch>) multiply_bf16(rows, n_cols, tokens, n_tokens, fetch, sums);
}

// Both at once for one token, with the same roundings in the same order. Two blocks of 32 columns advance together,
// because one chain of additions would wait for itself. Where vectors are loops, nothing is unrolled, and one body serves
// formats with minima and without, to which it adds zero: each copy of it would have 4 KB there.
//
// Roofline, AVX-512 on a Zen 4, for 64 weights (a vector of quads). Each of their four bytes takes a shift and a mask, a subtraction, a
// conversion, a multiply, for minima an addition, and a fused multiply-add: 24 or 28 instructions of 512 bits, of which two begin in
// a cycle; with the decoded tile, 3 cycles (Q4_K 2.8, Q8_0 2.4), 15 to 17. At 3.7 GHz these are 68 bytes or 17 GB/s of Q8_0, and 36
// bytes or 8 GB/s of Q4_K: 60% and 28% of the memory. What the roundings cannot do without, a multiply and a fused one for 16
// weights, is 8 cycles for Q4_K: no form of it comes above 16.6 GB/s, 59% of the memory.
constexpr bool one_body = simd::live_groups == 0;
template <typename Body>
[[gnu::always_inline]] inline void for_both(const Body& body) {
    if constexpr (one_body)
        for (int b = 0; b < 2; ++b) body(b);
    else
        unrolled<2>([&]<int b>() CLARION_INLINE { body(b); });
}
template <bool has_min>
void dot_tile_exact(const Format& format, const Tile& tile, int64_t n, const float* x, float* sums) {
    const simd::i32x16 offset = simd::set1(format.offset);
    const int per_scale = format.group / 16;  // groups have 16 columns or 32
    simd::f32x16 total = simd::load(sums);
    for (int64_t k = 0; k < n; k += 64) {
        const int blocks = k + 32 < n ? 2 : 1;
        simd::f32x16 acc[2] = {simd::zero(), simd::zero()};
        for (int64_t first = k; first < k + 32; first += 16) {
            simd::f32x16 scale[2], neg_min[2];
            for_both([&](int b) CLARION_INLINE {
                const int64_t g = per_scale == 1 ? first + 32 * b : first / 32 * 16 + 16 * b;
                if (b >= blocks) return;
                scale[b] = simd::load(tile.scale + g);
                if constexpr (has_min)
                    neg_min[b] = !one_body || format.has_min ? simd::load(tile.neg_min + g) : simd::zero();
            });
            for (int64_t quad = first; quad < first + 16; quad += 4)
                for_both([&](int b) CLARION_INLINE {
                    if (b >= blocks) return;
                    const int64_t column = quad + 32 * b;
                    const simd::i32x16 u = simd::as_i32(simd::load_bytes(tile.u + 16 * column));
                    unrolled<4>([&]<int j>() CLARION_INLINE {
                        simd::f32x16 w = simd::mul(scale[b], simd::to_f32(simd::sub(byte_of<j>(u), offset)));
                        if constexpr (has_min) w = simd::add(w, neg_min[b]);
                        acc[b] = simd::fma(w, simd::set1(x[column + j]), acc[b]);
                    });
                });
        }
        total = simd::add(total, acc[0]);
        if (blocks == 2) total = simd::add(total, acc[1]);
    }
    simd::store(sums, total);
}

// Sixteen rows, block after block: a panel, or rows of which it makes one in L1 where the format is decoded so.
class Source {
  public:
    Source(const Format& format, simd::Rows16 rows, bool is_panel, uint8_t* made)
        : format_(format), rows_(rows), is_panel_(is_panel), made_(made) {}

    int64_t at_once(int64_t n_cols) const { return is_panel_ ? n_cols : most_tile_columns; }
    // The next blocks.
    const uint8_t* panel(int64_t blocks) {
        const uint8_t* at = rows_.base;
        if (is_panel_) {
            rows_.base += 16 * blocks * format_.bytes;
            return at;
        }
        interleave(format_, rows_, blocks, made_);
        rows_.base += blocks * format_.bytes;
        return made_;
    }
    void decode(int64_t blocks, const Tile& tile) {
        if constexpr (simd::live_groups > 0) {
            format_.decode_panel(panel(blocks), blocks, tile);
        } else {
            decode_rows(format_, rows_, blocks, tile);
            rows_.base += blocks * format_.bytes;
        }
    }

  private:
    const Format& format_;
    simd::Rows16 rows_;
    bool is_panel_;
    uint8_t* made_;
};

// 16 rows that lie wholly within the matrix, or one row 16 times (stride 0).
void whole_panel(const Tiling& tiling, const Format& format, simd::Rows16 rows, bool is_panel, int64_t n_cols,
                 const ActivationRows& activations, int64_t n_tokens, Scratch16& local, float* sums) {
    const bool floats = activations.kind == Kind::f32;
    const auto one = activations.kind == Kind::high ? format.one_high : format.one_fast;
    const int64_t panel_bytes = 16 * rows.stride;  // 0: no other panel follows
    int64_t ahead = panel_bytes == 0 ? 0 : tiling.fetch_ahead;
    // What is read next of rows is in 16 places, of which the last is most of a panel further.
    if (!is_panel && panel_bytes != 0) ahead = (ahead + panel_bytes - 1) / panel_bytes * panel_bytes;
    const uint8_t* fetched = rows.base + ahead;
    Fetch fetch{fetched, fetched - ahead / 2, fetched - ahead / 6 * 5, tiling.fetch_near};
    const std::byte* tokens[most_tokens];
    for (int64_t t = 0; t < n_tokens; ++t) tokens[t] = activations.row(t);
    if (activations.kind == Kind::bf16) {
        multiply_pairs(rows, n_cols, tokens, n_tokens, fetch, sums);
        return;
    }
    if (!format.integer()) {
        if (n_tokens == 1)
            format.multiply_one_float(rows, n_cols, reinterpret_cast<const float*>(tokens[0]), fetch, sums);
        else
            multiply_floats(format, rows, n_cols, tokens, n_tokens, fetch, tiling.columns_f32, local.floats,
                            sums);
        return;
    }
    Source source(format, rows, is_panel, local.panel);
    std::fill_n(sums, 16 * n_tokens, 0.0f);
    const OctetList octets = activations.octets == nullptr ? OctetList{} : *activations.octets;
    std::fill_n(local.upper, 16 * octets.n_tokens, 0.0f);
    const Tile tile{local.u, local.scale, local.neg_min};
    if (simd::live_groups > 0 && one != nullptr && n_tokens == 1 && !floats) {
        const int64_t step = source.at_once(n_cols);
        for (int64_t k = 0; k < n_cols; k += step) {
            const int64_t n = std::min(step, n_cols - k);
            const uint8_t* panel = source.panel(n / format.block);
            one(panel, {k, n, n_cols}, tokens[0], fetch, sums);
            fetch.advance(16 * format.row_bytes(n));
            if (simd::live_groups > 0 && octets.n_tokens != 0)
                multiply_octets_of_one(format, panel, k, n, octets, tile, local.upper);
        }
        add_upper(octets, local.upper, sums);
        return;
    }
    const EncodedLayout layout(activations.kind, n_cols);
    const int64_t step = floats                         ? tiling.columns_f32
                         : n_tokens > tiling.few_tokens ? tiling.columns
                                                        : tiling.columns_few;
    for (int64_t k = 0; k < n_cols; k += step) {
        const int64_t n = std::min(step, n_cols - k);
        const SpreadFetch spread(fetch, 16 * format.row_bytes(n), n_tokens, n_tokens > tiling.few_tokens);
        fetch.advance(16 * format.row_bytes(n));
        source.decode(n / format.block, tile);
        if (floats && n_tokens == 1) {
            spread.tokens(0, 1);
            const auto dot = format.has_min ? dot_tile_exact<true> : dot_tile_exact<one_body>;
            dot(format, tile, n, reinterpret_cast<const float*>(tokens[0]) + k, sums);
        } else if (floats) {
            tile_to_f32(format, tile, n, local.weights);
            const int64_t done = multiply_whole_tile<float>(
                simd::FloatTileProduct{local.weights, k, n, tokens, n_tokens, sums}, spread);
            over_tokens<simd::tile_f32>(n_tokens, done, [&]<int N>(int64_t t) {
                spread.tokens(t, t + N);
                dot_tile_f32<N>(local.weights, k, n, tokens + t, sums + 16 * t);
            });
        } else if (activations.kind == Kind::high) {
            dot_tokens<simd::high_accumulator, simd::tile_high>(format, tile, k, n, layout, tokens, n_tokens,
                                                                spread, sums);
        } else if (is_wide(format.largest)) {
            dot_tokens<simd::fast_accumulator<true>, simd::tile_fast>(format, tile, k, n, layout, tokens,
                                                                      n_tokens, spread, sums);
        } else {
            dot_tokens<simd::fast_accumulator<false>, simd::tile_fast>(format, tile, k, n, layout, tokens,
                                                                       n_tokens, spread, sums);
        }
        if (octets.n_tokens != 0)
            multiply_octets(format, tile, k, octets.begin_at(k), octets.end_at(k + n), local.upper);
    }
    add_upper(octets, local.upper, sums);
}

}  // namespace

bool multiplies(const Format& format, Kind kind) {
    if (kind == Kind::bf16) return has_bf16<Fetch> && format.id == BF16::id;
    return kind == Kind::f32 || (kind != Kind::i32 && format.integer());
}

size_t product_scratch_bytes() { return sizeof(Scratch16); }

float* product_sums(std::byte* scratch) { return reinterpret_cast<Scratch16*>(scratch)->sums; }

void panel_product(const Tiling& tiling, const WeightRows& weight, int64_t first_row,
                   const ActivationRows& activations, int64_t n_tokens, std::byte* scratch, float* sums) {
    auto& local = *reinterpret_cast<Scratch16*>(scratch);
    const Format& format = weight.format;
    const int64_t n_rows = weight.n_rows, n_cols = weight.n_cols, row_bytes = format.row_bytes(n_cols);
    if (n_rows < 16) {  // each row on its own, in all lanes
        float one[16 * most_tokens];
        for (int64_t r = 0; r < n_rows; ++r) {
            whole_panel(tiling, format, {weight.data + r * row_bytes, 0}, false, n_cols, activations,
                        n_tokens, local, one);
            for (int64_t t = 0; t < n_tokens; ++t) sums[16 * t + r] = one[16 * t];
        }
        return;
    }
    // The last panel begins early enough to be whole; its lanes move down afterwards.
    const int64_t early = std::max<int64_t>(0, first_row + 16 - n_rows);
    whole_panel(tiling, format, {weight.data + (first_row - early) * row_bytes, row_bytes}, weight.panels,
                n_cols, activations, n_tokens, local, sums);
    if (early != 0)
        for (int64_t t = 0; t < n_tokens; ++t)
            std::copy(sums + 16 * t + early, sums + 16 * t + 16, sums + 16 * t);
}

}  // namespace clarion
