// Every format, multiplied with every encoding of activations, against its scalar decoder and float64.
//
// Tolerances, u = 2^-24 being the rounding of a float32, w the weights and x the activations of a row of K:
//
//   f32         Sums of 32 products, then sums of those; without fused multiply-add each rounds twice:
//               (2 * 32 + K/32 + 4) u sum |w x|. The four are for dequantising. Float formats sum every 16th column,
//               then the tree: (2 * K/16 + 6) u, which is less for the K here.
//   fast, high  The activations of a block of 32 are rounded to steps of s = max|x| / limit: s/2 sum |w|. Integer
//               sums are exact; each group of 16 or 32 columns adds at most four rounded operations:
//               (4 K/16 + 8) u times its terms' magnitude. Where a format has minima, scale * q and the minimum
//               partly cancel: in groups of random q both stay below 8 max|w| of the group.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats/table.h"
#include "kernels/format_table.h"
#include "kernels/reference.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

// n weights by the format's definition, whatever decodes it in this module.
template <typename F>
bool define(int id, const uint8_t* row, int64_t n, float* x) {
    if (F::id != id) return false;
    if constexpr (requires { F::group; }) {
        uint8_t u[F::block];
        float scale[F::block / F::group], neg_min[F::block / F::group] = {};
        for (int64_t k = 0; k < n; k += F::block, row += F::bytes) {
            F::unpack(row, u, scale, neg_min);
            for (int i = 0; i < F::block; ++i) {
                const float w = scale[i / F::group] * static_cast<float>(u[i] - F::offset);
                x[k + i] = F::has_min ? w + neg_min[i / F::group] : w;
            }
        }
    } else {
        F::dequantize(row, n, x);
    }
    return true;
}
template <typename... F>
void define(FormatList<F...>, int id, const uint8_t* row, int64_t n, float* x) {
    check((define<F>(id, row, n, x) || ...));
}

// Random bytes whose weights are finite and of ordinary size, block by block, and those weights.
struct Matrix {
    int64_t rows, cols;
    std::vector<uint8_t> bytes;
    std::vector<float> weights;  // [rows, cols]

    Matrix(const Format& format, int64_t rows, int64_t cols, Random& random)
        : rows(rows),
          cols(cols),
          bytes(static_cast<size_t>(rows * format.row_bytes(cols))),
          weights(static_cast<size_t>(rows * cols)) {
        float* w = weights.data();
        for (auto block = bytes.begin(); block != bytes.end(); block += format.bytes, w += format.block) {
            float largest = 0;
            do {
                std::generate_n(block, format.bytes,
                                [&] { return static_cast<uint8_t>(random.bits() >> 13); });
                define(AllFormats{}, format.id, &*block, format.block, w);
                largest = 0;
                for (int64_t i = 0; i < format.block; ++i)
                    largest = std::isfinite(w[i]) ? std::max(largest, std::fabs(w[i])) : 1e9f;
            } while (largest < 1e-3f || largest > 8);
        }
    }
};

double tolerance(Kind kind, const float* w, const float* x, int64_t cols) {
    const double u = 0x1p-24, k = static_cast<double>(cols);
    double products = 0, rounding = 0, magnitude = 0;
    for (int64_t first = 0; first < cols; first += 32) {
        double sum_w = 0, sum_x = 0, max_w = 0, max_x = 0;
        for (int64_t i = first; i < std::min(cols, first + 32); ++i) {
            const double wi = std::fabs(w[i]), xi = std::fabs(x[i]);
            products += wi * xi;
            sum_w += wi;
            sum_x += xi;
            max_w = std::max(max_w, wi);
            max_x = std::max(max_x, xi);
        }
        rounding += 0.5 * (1 + 1e-3) * max_x / (kind == Kind::high ? 32639 : 127) * sum_w;
        magnitude += 8 * sum_x * max_w;
    }
    if (kind == Kind::f32) return (2 * 32 + k / 32 + 4) * u * products + 1e-30;
    return rounding + (4 * k / 16 + 8) * u * magnitude;
}

void test_product(const Format& format, Kind kind, int64_t rows, int64_t cols, int64_t n_tokens) {
    Random random(static_cast<uint64_t>(1000 * format.id + rows));
    const Matrix matrix(format, rows, cols, random);
    std::vector<float> x(static_cast<size_t>(n_tokens * cols));
    for (float& e : x) {
        e = random.next();
        if (random.bits() % 512 == 0) e *= 50;  // real hidden states have outliers
    }
    const auto multiply = [&](const float* from, int64_t n) {
        std::vector<float> y(static_cast<size_t>(n * rows));
        linear(format.id, matrix.bytes.data(), static_cast<int64_t>(matrix.bytes.size()), rows, cols, from, n,
               kind, y.data());
        return y;
    };
    const std::vector<float> y = multiply(x.data(), n_tokens);
    for (int64_t t = 0; t < n_tokens; ++t) {
        const float* token = x.data() + t * cols;
        for (int64_t r = 0; r < rows; ++r) {
            const float* w = matrix.weights.data() + r * cols;
            double exact = 0;
            for (int64_t i = 0; i < cols; ++i)
                exact += static_cast<double>(w[i]) * static_cast<double>(token[i]);
            const double error = std::fabs(static_cast<double>(y[static_cast<size_t>(t * rows + r)]) - exact);
            const double allowed = tolerance(kind, w, token, cols);
            if (error <= allowed) continue;
            std::fprintf(
                stderr, "%s, activations %d: row %d of %d, token %d of %d, %d columns: error %g > %g\n",
                format.name, static_cast<int>(kind), static_cast<int>(r), static_cast<int>(rows),
                static_cast<int>(t), static_cast<int>(n_tokens), static_cast<int>(cols), error, allowed);
            check(false);
        }
        // One token alone takes another way through the kernels, with the same sums.
        const std::vector<float> alone = multiply(token, 1);
        check(std::memcmp(alone.data(), y.data() + t * rows, alone.size() * sizeof(float)) == 0);
    }
}

// Any bytes at all: the weights are those of the definition, infinities and NaN included.
void test_dequantize(const Format& format) {
    Random random(static_cast<uint64_t>(format.id));
    constexpr int64_t n = 1024;  // two tiles
    std::vector<uint8_t> row(static_cast<size_t>(format.row_bytes(n)));
    for (uint8_t& byte : row) byte = static_cast<uint8_t>(random.bits() >> 13);
    std::vector<float> expected(n), found(n);
    define(AllFormats{}, format.id, row.data(), n, expected.data());
    format.dequantize(row.data(), n, found.data());
    for (size_t i = 0; i < n; ++i)
        check(expected[i] == found[i] || (std::isnan(expected[i]) && std::isnan(found[i])));
}

}  // namespace

void test_products() {
    for (const Format* format = formats_begin(); format != formats_end(); ++format) test_dequantize(*format);
    for (const Format* format = formats_begin(); format != formats_end(); ++format) {
        // More than a tile, and no multiple of one.
        const int64_t cols =
            format->block == 1 ? 271 : (600 + format->block - 1) / format->block * format->block;
        for (const Kind kind : {Kind::f32, Kind::fast, Kind::high}) {
            if (kind != Kind::f32 && !format->integer()) continue;
            test_product(*format, kind, 37, cols, 13);
            test_product(*format, kind, 3, cols, 2);
        }
    }
}

}  // namespace clarion::tests
