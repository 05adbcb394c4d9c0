#include "kernels/kv_products.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/format.h"

namespace clarion {

namespace {

using simd::f32x16;

constexpr int64_t lanes = kv_lanes, line = 64;

// 16 elements of a float format. bf16 has a type of its own.
struct Bf16 {
    uint16_t bits;
};
f32x16 load_lanes(const float* p) { return simd::load(p); }
f32x16 load_lanes(const uint16_t* p) { return simd::load_f16(p); }
f32x16 load_lanes(const Bf16* p) { return simd::load_bf16(&p->bits); }

// Walks through what is to be fetched, at most `lines` at each of `steps` steps and the rest at once: a line left out is
// waited for.
template <int lines>
class Fetch {
  public:
    Fetch(const PageMatrix& m, int64_t steps)
        : at_(m.next), step_(std::min<int64_t>(m.next_bytes / std::max<int64_t>(1, steps), lines * line)) {
        for (int64_t rest = m.next_bytes - steps * step_; rest > 0; rest -= line, at_ += line)
            simd::prefetch(at_);
    }
    [[gnu::always_inline]] void step() {
        for (int i = 0; i < lines; ++i) simd::prefetch(at_ + i * line);
        at_ += step_;
    }

  private:
    const std::byte* at_;
    int64_t step_;
};

// sum[j][b] += sum over i in rows of w[j][i] * m[b][i], for Q rows of w and B columns of `length` vectors in m.
template <typename T, int Q, int B>
void accumulate(Matrix w, const T* m, int64_t length, Range rows, Matrix sum,
                Fetch<std::max(1, int{B * sizeof(T) * lanes / line})>& fetch) {
    const int64_t stride = length * lanes;
    f32x16 s[Q * B];
    unrolled<Q * B>([&]<int n>()
                        CLARION_INLINE { s[n] = simd::load(sum.data + n / B * sum.stride + n % B * lanes); });
    auto ahead = fetch;
    for (int64_t i = rows.from; i < rows.to; ++i) {
        if constexpr (Q <= 4) ahead.step();
        f32x16 v[B];
        unrolled<B>([&]<int b>() CLARION_INLINE { v[b] = load_lanes(m + b * stride + i * lanes); });
        unrolled<Q>([&]<int j>() CLARION_INLINE {
            const f32x16 x = simd::set1(w.data[j * w.stride + i]);
            unrolled<B>([&]<int b>() CLARION_INLINE { s[j * B + b] = simd::fma(x, v[b], s[j * B + b]); });
        });
    }
    fetch = ahead;
    unrolled<Q * B>([&]<int n>()
                        CLARION_INLINE { simd::store(sum.data + n / B * sum.stride + n % B * lanes, s[n]); });
}

// The same for a range of columns. One query takes four at a time, for enough independent sums.
template <typename T, int Q>
void accumulate_columns(Matrix w, const PageMatrix& m, int64_t length, Range columns, Range rows,
                        Matrix sum) {
    constexpr int B = Q == 1 ? 4 : most_queries / 4;
    const T* data = reinterpret_cast<const T*>(m.data);
    const auto column = [&](int64_t b) { return data + b * length * lanes; };
    const auto sums = [&](int64_t b) { return Matrix{sum.data + b * lanes, sum.stride}; };
    int64_t b = columns.from;
    Fetch<std::max(1, int{B * sizeof(T) * lanes / line})> fetch(
        m, (columns.to - columns.from) / B * (rows.to - rows.from));
    for (; b + B <= columns.to; b += B) accumulate<T, Q, B>(w, column(b), length, rows, sums(b), fetch);
    if constexpr (B > 1) {
        Fetch<std::max(1, int{sizeof(T) * lanes / line})> rest({m.format, m.data, m.dim, m.next, 0}, 1);
        for (; b < columns.to; ++b) accumulate<T, Q, 1>(w, column(b), length, rows, sums(b), rest);
    }
}

template <int Q>
void accumulate_format(Matrix w, const PageMatrix& m, int64_t length, Range columns, Range rows, Matrix sum) {
    if constexpr (Q <= 4) {
        if (m.format == KvFormat::f16)
            return accumulate_columns<uint16_t, Q>(w, m, length, columns, rows, sum);
        if (m.format == KvFormat::bf16) return accumulate_columns<Bf16, Q>(w, m, length, columns, rows, sum);
    }
    accumulate_columns<float, Q>(w, m, length, columns, rows, sum);
}

void accumulate_queries(int64_t n, Matrix w, const PageMatrix& m, int64_t length, Range columns, Range rows,
                        Matrix sum) {
    const auto f = n > 4   ? accumulate_format<most_queries>
                   : n > 1 ? accumulate_format<4>
                           : accumulate_format<1>;
    f(w, m, length, columns, rows, sum);
}

// Some panels of 16 rows, one behind the other, times the activations of Q queries: out[j] += the products with panel 0,
// out[j] + 16 those with panel 1, ... A panel is unsigned bytes [blocks][pairs][2][16 rows][4 columns], and has f16
// scales [blocks][16 rows], or none.
struct Panels {
    const uint8_t* u;
    const uint16_t* scales;
    int64_t n, blocks, pairs;
    int32_t offset;
};

template <int Q>
void multiply(const Panels& panels, const Encoded& a, Matrix out, Fetch<2>& fetch) {
    using Accumulator = simd::high_accumulator;
    const uint8_t* u = panels.u;
    const uint16_t* scales = panels.scales;
    auto ahead = fetch;
    for (int64_t p = 0; p < panels.n; ++p, out.data += lanes) {
        f32x16 total[Q];
        steps<Q>([&](auto j) CLARION_INLINE { total[j] = simd::load(out.row(j)); });
        const uint8_t* quads = a.quads(0);
        for (int64_t b = 0; b < panels.blocks; ++b) {
            Accumulator acc[Q];
            steps<Q>([&](auto j) CLARION_INLINE {
                acc[j] = Accumulator::start((Accumulator::bias - panels.offset) * a.blocks(j)[b].sum);
            });
            for (int64_t i = 0; i < panels.pairs; ++i, u += 2 * line, quads += 2 * Encoded::quad_bytes) {
                if constexpr (Q <= 4) ahead.step();
                const simd::u8x64 w0 = simd::load_bytes(u), w1 = simd::load_bytes(u + line);
                steps<Q>([&](auto j) CLARION_INLINE { acc[j].dot2(w0, w1, quads + j * a.stride); });
            }
            f32x16 scale = simd::set1(1.0f);
            if (scales) {
                scale = simd::load_f16(scales);
                scales += lanes;
            }
            steps<Q>([&](auto j) CLARION_INLINE {
                const f32x16 both = simd::mul(scale, simd::set1(a.blocks(j)[b].scale));
                total[j] = simd::fma(simd::to_f32(acc[j].total()), both, total[j]);
            });
        }
        steps<Q>([&](auto j) CLARION_INLINE { simd::store(out.row(j), total[j]); });
    }
    fetch = ahead;
}

auto multiply_for(int64_t n) { return n > 4 ? multiply<most_queries> : n > 1 ? multiply<4> : multiply<1>; }

const uint8_t* integers(const PageMatrix& m) {
    return reinterpret_cast<const uint8_t*>(m.data) + kv_scale_bytes(m.dim);
}

// The weights of a block of dims: columns are the positions of a page.
Encoded weights_block(const Encoded& rows, int64_t block) {
    return {rows.data + block * Encoded::bytes(kv_page, 1), rows.stride, kv_page};
}

template <typename T>
void widen(const PageMatrix& m, int64_t n, float* out) {
    const T* x = reinterpret_cast<const T*>(m.data);
    for (int64_t i = 0; i < n; i += lanes) simd::store(out + i, load_lanes(x + i));
}

// n vectors as one block. Not finite: the scale is NaN.
template <int n>
[[gnu::always_inline]] inline void encode(const f32x16* x, uint8_t* quads, Encoded::Block& block) {
    f32x16 largest = simd::abs(x[0]);
    steps<n - 1>([&](auto i) CLARION_INLINE { largest = simd::max(largest, simd::abs(x[i + 1])); });
    const float greatest = simd::reduce_max(largest);
    const float inverse = static_cast<float>(simd::high_limit) / greatest;
    if (inverse > std::numeric_limits<float>::max()) {  // all zero, or below 1e-34; NaN may hide behind zeros
        f32x16 any = simd::zero();
        steps<n>([&](auto i) CLARION_INLINE { any = simd::add(any, simd::sub(x[i], x[i])); });
        std::fill_n(quads, n * 4 * Encoded::quad_bytes, uint8_t{0});
        block = {simd::reduce_add(any), 0};
        return;
    }
    f32x16 sums = simd::zero();
    steps<n>([&](auto i) CLARION_INLINE {
        const simd::i32x16 a = simd::to_i32(simd::mul(x[i], simd::set1(inverse)));
        simd::encode_quads(quads + i * 4 * Encoded::quad_bytes, a);
        sums = simd::add(sums, simd::to_f32(a));
    });
    // Exact: below 64 * 2^15 = 2^21. What was not finite became -2^31.
    const float sum = simd::reduce_add(sums);
    const bool finite = std::fabs(sum) <= 0x1p21f;
    block = {
        finite ? greatest / static_cast<float>(simd::high_limit) : std::numeric_limits<float>::quiet_NaN(),
        finite ? static_cast<int32_t>(sum) : 0};
}

}  // namespace

int64_t prepared_bytes(int64_t dim_k, int64_t dim_v) {
    int64_t bytes = 0;
    for (const auto format : {KvFormat::f32, KvFormat::q8_0})
        bytes = std::max({bytes, kv_bytes(format, dim_k, false), kv_bytes(format, dim_v, true)});
    return bytes;
}

PageMatrix prepare(const PageMatrix& m, bool values, int64_t queries, std::byte* scratch) {
    PageMatrix result{m.format, scratch, m.dim, m.next, 0};
    if (m.format == KvFormat::q4_0) {
        const int64_t scales = kv_scale_bytes(m.dim);
        std::copy_n(m.data, scales, scratch);
        // A vector of nibbles is two of bytes: the next quad of the same keys, or the same quad of the next 16 dims.
        const int64_t apart = values ? kv_page * lanes : line, vectors = values ? kv_page / 4 : 1;
        const uint8_t* from = integers(m);
        auto* to = reinterpret_cast<uint8_t*>(scratch + scales);
        const simd::u8x64 low = simd::set1_u8(15);
        Fetch<1> fetch(m, kv_blocks(m.dim) * lanes);
        for (int64_t group = 0; group < kv_blocks(m.dim) * lanes / vectors; ++group, to += apart)
            for (int64_t v = 0; v < vectors; ++v, from += line, to += line) {
                fetch.step();
                const simd::u8x64 both = simd::load_bytes(from);
                simd::store_bytes(to, simd::bit_and(both, low));
                simd::store_bytes(to + apart, simd::shift_right_u8<4>(both));
            }
        return result;
    }
    if (queries <= 4 || m.format == KvFormat::f32 || m.format == KvFormat::q8_0) return m;
    result.format = KvFormat::f32;
    const int64_t n = kv_bytes(m.format, m.dim, values) / 2;
    (m.format == KvFormat::f16 ? widen<uint16_t> : widen<Bf16>)(m, n, reinterpret_cast<float*>(scratch));
    return result;
}

int64_t encoded_query_bytes(int64_t dim) { return Encoded::bytes(kv_blocks(dim) * kv_block, kv_blocks(dim)); }
int64_t encoded_weights_bytes(int64_t dim) { return kv_blocks(dim) * Encoded::bytes(kv_page, 1); }

void encode_query(const float* q, int64_t dim, const Encoded& rows, int64_t row) {
    for (int64_t b = 0; b < kv_blocks(dim); ++b) {
        const f32x16 x[2] = {simd::load(q + b * kv_block), simd::load(q + b * kv_block + lanes)};
        encode<2>(x, rows.quads(row) + b * 8 * Encoded::quad_bytes, rows.blocks(row)[b]);
    }
}

void encode_weights(const float* p, Range range, const PageMatrix& values, const Encoded& rows, int64_t row) {
    const auto* scales = reinterpret_cast<const uint16_t*>(values.data);
    for (int64_t b = 0; b < kv_blocks(values.dim); ++b, scales += kv_page) {
        f32x16 x[4];
        steps<4>([&](auto i) CLARION_INLINE {
            x[i] = simd::mul(simd::load(p + i * lanes), simd::load_f16(scales + i * lanes));
        });
        if (range.from > 0 || range.to < kv_page) {
            float masked[kv_page];
            steps<4>([&](auto i) CLARION_INLINE { simd::store(masked + i * lanes, x[i]); });
            std::fill(masked, masked + range.from, 0.0f);
            std::fill(masked + range.to, masked + kv_page, 0.0f);
            steps<4>([&](auto i) CLARION_INLINE { x[i] = simd::load(masked + i * lanes); });
        }
        const Encoded block = weights_block(rows, b);
        encode<4>(x, block.quads(row), *block.blocks(row));
    }
}

int64_t block_size(int64_t n) { return n > 4 ? most_queries : n > 1 ? 4 : 1; }

void add_scores(int64_t n, Matrix q, const PageMatrix& keys, Range vectors, Matrix s) {
    accumulate_queries(n, q, keys, keys.dim, vectors, {0, keys.dim}, s);
}

void add_values(int64_t n, Matrix p, const PageMatrix& values, Range positions, Matrix o) {
    accumulate_queries(n, p, values, kv_page, {0, (values.dim + lanes - 1) / lanes}, positions, o);
}

void add_scores(int64_t n, const Encoded& q, const PageMatrix& keys, Range vectors, Matrix s) {
    const int64_t blocks = kv_blocks(keys.dim), panels = vectors.to - vectors.from;
    const auto* scales = reinterpret_cast<const uint16_t*>(keys.data);
    Fetch<2> fetch(keys, 4 * blocks * panels);
    const Panels some{integers(keys) + vectors.from * blocks * 8 * line,
                      scales + vectors.from * blocks * lanes,
                      panels,
                      blocks,
                      4,
                      kv_offset(keys.format)};
    multiply_for(n)(some, q, {s.data + vectors.from * lanes, s.stride}, fetch);
}

void add_values(int64_t n, const Encoded& p, const PageMatrix& values, Matrix o) {
    const int64_t blocks = kv_blocks(values.dim);
    Fetch<2> fetch(values, 16 * blocks);
    for (int64_t b = 0; b < blocks; ++b)
        multiply_for(n)(
            {integers(values) + b * kv_page * kv_block, nullptr, 2, 1, 8, kv_offset(values.format)},
            weights_block(p, b), {o.data + b * kv_block, o.stride}, fetch);
}

}  // namespace clarion
