#include "kernels/activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/lanes.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// x - x is zero for finite numbers and NaN otherwise.
simd::f32x16 not_finite(simd::f32x16 x0, simd::f32x16 x1) {
    return simd::add(simd::sub(x0, x0), simd::sub(x1, x1));
}
bool all_finite(const float* x, int64_t whole_blocks) {
    simd::f32x16 sum = simd::zero();
    for (int64_t k = 0; k < 32 * whole_blocks; k += 32)
        sum = simd::add(sum, not_finite(simd::load(x + k), simd::load(x + k + 16)));
    return simd::reduce_add(sum) == 0.0f;
}

// A block of 32 columns: integers in [-limit, limit], and what they are multiplied with.
struct Block {
    simd::i32x16 a0, a1;
    float scale;
};
Block quantize_block(const float* x, int32_t limit, bool finite) {
    const simd::f32x16 x0 = simd::load(x), x1 = simd::load(x + 16);
    const float amax = simd::reduce_max(simd::max(simd::abs(x0), simd::abs(x1)));
    const float inverse = static_cast<float>(limit) / amax;
    // max() may have dropped a NaN.
    finite = finite || simd::reduce_add(not_finite(x0, x1)) == 0.0f;
    if (!finite || !(inverse <= std::numeric_limits<float>::max())) {
        // Not finite, or all zero, or so small (below 1e-34) that its reciprocal overflows: a is zero.
        const simd::i32x16 none = simd::set1(int32_t{0});
        return {none, none, finite ? 0.0f : std::numeric_limits<float>::quiet_NaN()};
    }
    // None is beyond the limit: two roundings make amax * inverse larger by 2^-22 of it at most, less than a half.
    return {simd::to_i32(simd::mul(x0, simd::set1(inverse))),
            simd::to_i32(simd::mul(x1, simd::set1(inverse))), amax / static_cast<float>(limit)};
}

// Where the instruction set has no products of them (simd/tile.h), there are no such rows.
template <typename Half>
void encode_bf16(const float* x, int64_t width, Half* row) {
    if constexpr (requires { store_bf16(row, simd::f32x16{}); })
        for (int64_t k = 0; k < width; k += simd::lanes) store_bf16(row + k, load_n(x + k, width - k));
}

}  // namespace

void encode_row(Kind kind, const float* x, int64_t width, std::byte* row) {
    if (kind == Kind::f32) {
        if (reinterpret_cast<const std::byte*>(x) != row) std::memcpy(row, x, 4 * static_cast<size_t>(width));
        return;
    }
    if (kind == Kind::bf16) {
        encode_bf16(x, width, reinterpret_cast<uint16_t*>(row));
        return;
    }
    const EncodedLayout layout(kind, width);
    const bool high = kind == Kind::high;
    const int32_t limit = high ? simd::high_limit : 127;
    auto* quads = reinterpret_cast<uint8_t*>(row);
    auto* scale = reinterpret_cast<float*>(row + layout.scale);
    auto* fsum32 = reinterpret_cast<float*>(row + layout.fsum32);
    auto* fsum16 = reinterpret_cast<float*>(row + layout.fsum16);
    auto* sum32 = reinterpret_cast<int32_t*>(row + layout.sum32);
    auto* sum16 = reinterpret_cast<int32_t*>(row + layout.sum16);
    const bool finite = all_finite(x, width / 32);
    alignas(64) float padded[32];
    for (int64_t k = 0; k < width; k += 32) {
        const bool whole = k + 32 <= width;
        const float* from = x + k;
        if (!whole) {
            std::fill_n(padded, 32, 0.0f);
            std::copy_n(from, width - k, padded);
            from = padded;
        }
        const int64_t b = k / 32;
        const Block block = quantize_block(from, limit, finite && whole);
        scale[b] = block.scale;
        if (high) {
            simd::encode_quads(quads + 2 * k, block.a0);
            simd::encode_quads(quads + 2 * k + 32, block.a1);
        } else {
            simd::store_i8(reinterpret_cast<int8_t*>(quads + k), block.a0);
            simd::store_i8(reinterpret_cast<int8_t*>(quads + k + 16), block.a1);
        }
        // Sums are below 2^24, so floats hold them exactly.
        const float half[2] = {simd::reduce_add(simd::to_f32(block.a0)),
                               simd::reduce_add(simd::to_f32(block.a1))};
        for (int h = 0; h < 2; ++h) {
            sum16[2 * b + h] = static_cast<int32_t>(half[h]);
            fsum16[2 * b + h] = scale[b] * half[h];
        }
        sum32[b] = static_cast<int32_t>(half[0] + half[1]);
        fsum32[b] = scale[b] * (half[0] + half[1]);
    }
}

}  // namespace clarion
