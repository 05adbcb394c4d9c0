// Every format, multiplied with every encoding of activations, against its scalar decoder and float64.
//
// Tolerances, u = 2^-24 being the rounding of a float32, w the weights and x the activations of a row of K:
//
//   f32         Sums of 32 products, then sums of those; without fused multiply-add each rounds twice:
//               (2 * 32 + K/32 + 4) u sum |w x|. The four are for dequantising. Float formats sum every 16th column,
//               then the tree: (2 * K/16 + 6) u, which is less for the K here.
//   bf16        Activations are rounded to eight bits, by 2^-8 of each at most; sums as with f32.
//   fast, high  The activations of a block of 32 are rounded to steps of s = max|x| / limit: s/2 sum |w|. Integer
//               sums are exact; each group of 16 or 32 columns adds at most four rounded operations:
//               (4 K/16 + 8) u times its terms' magnitude. Where a format has minima, scale * q and the minimum
//               partly cancel: in groups of random q both stay below 8 max|w| of the group.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats/facts.h"
#include "formats/table.h"
#include "kernels/activations.h"
#include "kernels/direct.h"
#include "kernels/panel.h"
#include "kernels/product.h"
#include "kernels/row_decoder.h"
#include "machine/modules.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

constexpr uint64_t weights_hash = 0xeee81f1c12835709;

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
bool define(FormatList<F...>, int id, const uint8_t* row, int64_t n, float* x) {
    return (define<F>(id, row, n, x) || ...);
}
void define(int id, const uint8_t* row, int64_t n, float* x) {
    check(define(CommonFormats{}, id, row, n, x) || define(OtherFormats{}, id, row, n, x));
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
                define(format.id, &*block, format.block, w);
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
    if (kind == Kind::bf16) return (0x1p-8 + (2 * 32 + k / 32 + 4) * u) * products + 1e-30;
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
        const auto n_bytes = static_cast<int64_t>(matrix.bytes.size());
        linear(format.id, matrix.bytes.data(), n_bytes, rows, cols, false, from, n, kind, y.data());
        if (can_be_panels(format.id, rows)) {  // the same bits from panels
            std::vector<uint8_t> panels(matrix.bytes.size());
            std::vector<float> again(y.size());
            interleave(format.id, cols, matrix.bytes.data(), panels.data(), n_bytes);
            linear(format.id, panels.data(), n_bytes, rows, cols, true, from, n, kind, again.data());
            check(std::memcmp(y.data(), again.data(), y.size() * sizeof(float)) == 0);
        }
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
            if (!(error <= allowed))
                std::fprintf(
                    stderr, "%s, activations %d: row %d of %d, token %d of %d, %d columns: error %g > %g\n",
                    format.name, static_cast<int>(kind), static_cast<int>(r), static_cast<int>(rows),
                    static_cast<int>(t), static_cast<int>(n_tokens), static_cast<int>(cols), error, allowed);
            check(error <= allowed);
        }
        // One token alone takes another way through the kernels, with the same sums.
        const std::vector<float> alone = multiply(token, 1);
        check(std::memcmp(alone.data(), y.data() + t * rows, alone.size() * sizeof(float)) == 0);
    }
}

// A panel has the weights of its 16 rows: of each alone, and of all of them as a tile.
void test_panel(const Format& format) {
    Random random(static_cast<uint64_t>(format.id));
    constexpr int64_t cols = 256;
    const int64_t blocks = cols / format.block, row_bytes = format.row_bytes(cols);
    const Matrix matrix(format, 16, cols, random);
    std::vector<uint8_t> panel(matrix.bytes.size());
    interleave(format, {matrix.bytes.data(), row_bytes}, blocks, panel.data());
    if (format.decode_panel != nullptr)
        for (int r = 0; r < 16; ++r) {
            float row[cols];
            dequantize_lane(format, panel.data(), r, cols, row);
            check(std::equal(row, row + cols, matrix.weights.begin() + r * cols));
        }
    alignas(64) uint8_t u[16 * cols];
    alignas(64) float scale[cols], neg_min[cols];
    const Tile tile{u, scale, neg_min};
    if (format.decode_panel != nullptr)
        format.decode_panel(panel.data(), blocks, tile);
    else
        decode_rows(format, {matrix.bytes.data(), row_bytes}, blocks, tile);
    for (int r = 0; r < 16; ++r)
        for (int64_t k = 0; k < cols; ++k) {
            const int32_t stored = u[16 * (k / 4 * 4) + 4 * r + k % 4];
            check(stored <= format.largest);
            const auto q = static_cast<float>(stored - format.offset);
            const int64_t at = k / format.group * 16 + r;
            const float scaled = scale[at] * q, w = matrix.weights[static_cast<size_t>(r * cols + k)];
            check(w == (format.has_min ? scaled + neg_min[at] : scaled));
        }
}

// The weights of the same bytes have the same bits on every processor, whatever its byte order: one hash (FNV-1a) of
// all formats, by their ids. A new format changes it once.
void test_weights() {
    uint64_t hash = 0xcbf29ce484222325;
    std::vector<int> ids;
    for (const FormatFacts& facts : format_facts()) ids.push_back(facts.id);
    std::sort(ids.begin(), ids.end());
    for (const int id : ids) {
        Random random(static_cast<uint64_t>(id));
        for (const float w : Matrix(*find_format(id), 2, 256, random).weights)
            hash = (hash ^ std::bit_cast<uint32_t>(w)) * 0x100000001b3;
    }
    if (hash != weights_hash)
        std::fprintf(stderr, "weights: %016llx\n", static_cast<unsigned long long>(hash));
    check(hash == weights_hash);
}

// Any bytes at all: the weights are those of the definition, infinities and NaN included.
void test_dequantize(const Format& format) {
    Random random(static_cast<uint64_t>(format.id));
    constexpr int64_t n = 1024;  // two tiles
    std::vector<uint8_t> row(static_cast<size_t>(format.row_bytes(n)));
    for (uint8_t& byte : row) byte = static_cast<uint8_t>(random.bits() >> 13);
    std::vector<float> expected(n), found(n);
    define(format.id, row.data(), n, expected.data());
    dequantize(format, row.data(), n, found.data());
    for (size_t i = 0; i < n; ++i)
        check(expected[i] == found[i] || (std::isnan(expected[i]) && std::isnan(found[i])));
}

// Decoders of a format whose weights are all the largest, with scales of one and no minima.
const Format* filled;
void fill(int64_t blocks, int64_t rows, const Tile& tile) {
    const int64_t n = rows * blocks * filled->block;
    std::fill_n(tile.u, n, static_cast<uint8_t>(filled->largest));
    std::fill_n(tile.scale, n / filled->group, 1.0f);
    std::fill_n(tile.neg_min, filled->has_min ? n / filled->group : 0, 0.0f);
}
void fill_panel(const uint8_t*, int64_t blocks, const Tile& tile) { fill(blocks, 16, tile); }
void fill_row(const uint8_t*, int64_t blocks, uint8_t* u, float* scale, float* neg_min) {
    fill(blocks, 1, {u, scale, neg_min});
}

// The largest weights and activations, in tiles with tokens of any number: no sum overflows before it is wide enough.
void test_largest(const Format& format, Kind kind) {
    struct alignas(64) Line {
        std::byte bytes[64];
    };
    constexpr int64_t cols = 512, n_tokens = 37;
    filled = &format;
    Format full = format;
    full.decode_panel = fill_panel;
    full.unpack = fill_row;
    full.one_fast = full.one_high = nullptr;
    const auto limit = static_cast<float>(kind == Kind::high ? simd::high_limit : 127);
    const int64_t stride = row_bytes(kind, cols);
    std::vector<Line> rows(static_cast<size_t>(n_tokens * stride / 64)),
        scratch(product_scratch_bytes() / 64 + 1);
    const std::vector<uint8_t> panel(static_cast<size_t>(16 * format.row_bytes(cols)));
    for (int64_t t = 0; t < n_tokens; ++t) {
        const std::vector<float> x(cols, t % 2 == 0 ? limit : -limit);
        encode_row(kind, x.data(), cols, rows[0].bytes + t * stride);
    }
    float* sums = product_sums(scratch[0].bytes);
    for (const int64_t n : {n_tokens, int64_t{1}}) {
        panel_product(Tiling(), {full, panel.data(), 16, cols, true}, 0, {kind, rows[0].bytes, stride}, n,
                      scratch[0].bytes, sums);
        for (int64_t i = 0; i < 16 * n; ++i) {
            const float sum = static_cast<float>(cols * (format.largest - format.offset)) * limit;
            check(std::fabs(sums[i] - (i / 16 % 2 == 0 ? sum : -sum)) <= 1e-5f * sum);
        }
    }
}

}  // namespace

void test_products() {
    test_weights();
    for (const FormatFacts& facts : format_facts()) {
        const Format* format = find_format(facts.id);
        test_dequantize(*format);
        if (format->integer()) {
            test_panel(*format);
            test_largest(*format, Kind::fast);
            test_largest(*format, Kind::high);
        }
        const auto columns = [&](int64_t least) {
            return format->block == 1 ? least : (least + format->block - 1) / format->block * format->block;
        };
        for (const Kind kind : {Kind::f32, Kind::fast, Kind::high, Kind::bf16}) {
            if (!multiplies(*format, kind)) continue;
            test_product(*format, kind, 37, columns(format->block == 1 ? 271 : 600), 13);  // more than a tile
            test_product(*format, kind, 16, columns(31),
                         35);  // as many tokens as any register holds, and some
            test_product(*format, kind, 32, columns(600), 3);  // panels
            test_product(*format, kind, 3, columns(600), 2);   // less than a panel
        }
    }
}

}  // namespace clarion::tests
