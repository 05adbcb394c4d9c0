#include "kernels/float_product.h"

#include <algorithm>

namespace clarion {

namespace {

constexpr int64_t token_lanes = 16 * simd::lanes;  // the sums of 16 rows with a token

// The next `n` columns of R rows, `stride` floats apart, with T tokens: in each register of lanes, in the order of the columns.
template <int R, int T>
void multiply_rows(const float* w, int64_t stride, int64_t n, const float* const* x, int64_t column,
                   float* totals) {
    constexpr int64_t width = sizeof(simd::f32_register) / sizeof(float);
    for (int64_t lane = 0; lane < simd::lanes; lane += width) {
        simd::f32_register total[R * T];
        unrolled<T>([&]<int t>() CLARION_INLINE {
            unrolled<R>([&]<int r>() CLARION_INLINE {
                total[R * t + r] = simd::load_register(totals + t * token_lanes + r * simd::lanes + lane);
            });
        });
        for (int64_t k = lane; k < n; k += simd::lanes) {
            simd::f32_register a[T];
            unrolled<T>([&]<int t>() CLARION_INLINE { a[t] = simd::load_register(x[t] + column + k); });
            unrolled<R>([&]<int r>() CLARION_INLINE {
                const simd::f32_register one = simd::load_register(w + r * stride + k);
                unrolled<T>([&]<int t>() CLARION_INLINE {
                    total[R * t + r] = simd::fma(one, a[t], total[R * t + r]);
                });
            });
        }
        unrolled<T>([&]<int t>() CLARION_INLINE {
            unrolled<R>([&]<int r>() CLARION_INLINE {
                simd::store_register(totals + t * token_lanes + r * simd::lanes + lane, total[R * t + r]);
            });
        });
    }
}

// The same for all 16 rows.
template <int T>
[[gnu::noinline]] void multiply_block(const float* w, int64_t n, const float* const* x, int64_t column,
                                      float* totals) {
    constexpr int R = simd::float_rows;
    int r = 0;
    for (; r + R <= 16; r += R) multiply_rows<R, T>(w + r * n, n, n, x, column, totals + r * simd::lanes);
    if constexpr (16 % R != 0)
        for (; r < 16; ++r) multiply_rows<1, T>(w + r * n, n, n, x, column, totals + r * simd::lanes);
}

// What is left of 16 columns, once for all tokens.
void add_left(const Format& format, simd::Rows16 rows, int64_t whole, int64_t left, const float* const* x,
              int64_t n_tokens, float* totals) {
    for (int64_t r = 0; r < 16; ++r) {
        alignas(64) float w[16] = {};
        format.dequantize_floats(rows.base + r * rows.stride + format.bytes * whole, left, w);
        for (int64_t t = 0; t < n_tokens; ++t) {
            float* total = totals + t * token_lanes + r * simd::lanes;
            simd::store(total,
                        simd::add(simd::load(total), simd::mul(simd::load(w), load_n(x[t] + whole, left))));
        }
    }
}

// The tree of reduce_add for 16 rows, at once: a transposition puts lane i of all rows into vector i.
void add_lanes(const float* totals, float* sums) {
    if constexpr (simd::float_rows == 1) {  // without vectors there is nothing to gain
        for (int64_t r = 0; r < 16; ++r) sums[r] = simd::reduce_add(simd::load(totals + r * simd::lanes));
        return;
    }
    simd::f32x16 lane[16];
    unrolled<4>([&]<int four>() CLARION_INLINE {
        simd::u8x64 bytes[4];
        simd::transpose_16({reinterpret_cast<const uint8_t*>(totals), 4 * simd::lanes}, 16 * four, bytes);
        unrolled<4>([&]<int i>()
                        CLARION_INLINE { lane[4 * four + i] = simd::as_f32(simd::as_i32(bytes[i])); });
    });
    unrolled<8>([&]<int i>() CLARION_INLINE { lane[i] = simd::add(lane[i], lane[i + 8]); });
    unrolled<4>([&]<int i>() CLARION_INLINE { lane[i] = simd::add(lane[i], lane[i + 4]); });
    simd::store(sums, simd::add(simd::add(lane[0], lane[2]), simd::add(lane[1], lane[3])));
}

}  // namespace

float finish_float(void (*dequantize)(const uint8_t*, int64_t, float*), const uint8_t* row, const float* x,
                   int64_t left, simd::f32x16 sum) {
    if (left != 0) {
        alignas(64) float w[16] = {};
        dequantize(row, left, w);
        sum = simd::add(sum, simd::mul(simd::load(w), load_n(x, left)));
    }
    return simd::reduce_add(sum);
}

void multiply_floats(const Format& format, simd::Rows16 rows, int64_t n_cols, const std::byte* const* tokens,
                     int64_t n_tokens, const Fetch& fetch, int64_t columns, FloatScratch& scratch,
                     float* sums) {
    constexpr int T = simd::float_tokens;
    const int64_t whole = n_cols / simd::lanes * simd::lanes, left = n_cols - whole;
    for (int64_t done = 0; done < n_tokens; done += FloatScratch::most_tokens) {
        const int64_t n_here = std::min(n_tokens - done, FloatScratch::most_tokens);
        const auto* x = reinterpret_cast<const float* const*>(tokens) + done;
        const uint8_t* fetched = done == 0 ? fetch.first : rows.base;
        std::fill_n(scratch.totals, n_here * token_lanes, 0.0f);
        for (int64_t k = 0; k < whole; k += columns) {
            const int64_t n = std::min(columns, whole - k);
            for (int r = 0; r < 16; ++r) {
                const int64_t at = r * rows.stride + format.bytes * k;
                format.read_floats(rows.base + at, n, fetched + at, scratch.weights + r * n);
            }
            int64_t t = 0;
            const auto multiply = [&]<int some>() CLARION_INLINE {
                for (; t + some <= n_here; t += some)
                    multiply_block<some>(scratch.weights, n, x + t, k, scratch.totals + t * token_lanes);
            };
            multiply.template operator()<T>();
            if constexpr (T > 2) multiply.template operator()<2>();
            multiply.template operator()<1>();
        }
        if (left != 0) add_left(format, rows, whole, left, x, n_here, scratch.totals);
        for (int64_t t = 0; t < n_here; ++t)
            add_lanes(scratch.totals + t * token_lanes, sums + 16 * (done + t));
    }
}

}  // namespace clarion
