#include "kernels/direct.h"

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>

#include "formats/bf16.h"
#include "kernels/activations.h"
#include "kernels/octets.h"
#include "kernels/panel.h"
#include "kernels/product.h"
#include "kernels/row_decoder.h"
#include "machine/modules.h"

namespace clarion {

namespace {

struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
std::unique_ptr<std::byte[], AlignedDelete> aligned_bytes(size_t n) {
    return std::unique_ptr<std::byte[], AlignedDelete>(
        static_cast<std::byte*>(::operator new[](n, std::align_val_t{64})));
}

const Format& known_format(int type_id) {
    const Format* format = find_format(type_id);
    if (format == nullptr)
        throw std::invalid_argument("weight format " + std::to_string(type_id) + " is unknown");
    return *format;
}

}  // namespace

bool multiplies_bf16() { return multiplies(known_format(BF16::id), Kind::bf16); }

void dequantize(int type_id, const uint8_t* data, int64_t n_bytes, int64_t n, float* x) {
    const Format& format = known_format(type_id);
    if (n < 0 || n % format.block != 0 || n_bytes < format.row_bytes(n))
        throw std::invalid_argument("n must be whole blocks within the data");
    dequantize(format, data, n, x);
}

void linear(int type_id, const uint8_t* data, int64_t n_bytes, int64_t rows, int64_t cols, bool panels,
            const float* x, int64_t n_tokens, Kind kind, float* y) {
    const Format& format = known_format(type_id);
    if (rows < 1 || cols < 1 || cols % format.block != 0 || n_bytes < rows * format.row_bytes(cols))
        throw std::invalid_argument("rows and cols must be positive, whole blocks, and within the data");
    if (!multiplies(format, kind))
        throw std::invalid_argument("this format does not multiply activations of this kind");
    if (panels && !format.can_be_panels(rows))
        throw std::invalid_argument("so many rows of this format are no panels");
    const WeightRows weight{format, data, rows, cols, panels};
    const int64_t stride = row_bytes(kind, cols);
    const auto encoded = aligned_bytes(static_cast<size_t>(stride * std::max<int64_t>(n_tokens, 1)));
    const auto scratch = aligned_bytes(product_scratch_bytes());
    for (int64_t t = 0; t < n_tokens; ++t) encode_row(kind, x + t * cols, cols, encoded.get() + t * stride);
    float* sums = product_sums(scratch.get());
    const Tiling tiling;
    OctetLists lists;
    lists.reserve(kind, cols, std::min(most_tokens, n_tokens), 1);
    for (int64_t t = 0; t < n_tokens; t += most_tokens) {
        const int64_t n = std::min(most_tokens, n_tokens - t);
        ActivationRows activations{kind, encoded.get() + t * stride, stride};
        lists.clear();
        lists.add(activations, n);
        const OctetList octets = lists[0];
        activations.octets = &octets;
        for (int64_t row = 0; row < rows; row += 16) {
            panel_product(tiling, weight, row, activations, n, scratch.get(), sums);
            for (int64_t i = 0; i < n; ++i)
                std::copy_n(sums + 16 * i, std::min<int64_t>(16, rows - row), y + (t + i) * rows + row);
        }
    }
}

bool can_be_panels(int type_id, int64_t rows) { return known_format(type_id).can_be_panels(rows); }

void interleave(int type_id, int64_t cols, const uint8_t* rows, uint8_t* panels, int64_t n_bytes) {
    const Format& format = known_format(type_id);
    if (cols < 1 || cols % format.block != 0 || n_bytes % (16 * format.row_bytes(cols)) != 0 ||
        !format.can_be_panels(16))
        throw std::invalid_argument("interleave: needs whole panels of a format that has them");
    const int64_t row_bytes = format.row_bytes(cols);
    for (int64_t at = 0; at < n_bytes; at += 16 * row_bytes)
        interleave(format, {rows + at, row_bytes}, cols / format.block, panels + at);
}

}  // namespace clarion
