#include "kernels/activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/lanes.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// One block of 32 columns: quantises to integers in [-limit, limit] and returns the scale.
float quantize_block(const float* x, int32_t limit, int32_t a[32]) {
    const simd::f32x16 x0 = simd::load(x), x1 = simd::load(x + 16);
    const simd::f32x16 largest = simd::max(simd::abs(x0), simd::abs(x1));
    // x - x is zero for finite numbers and NaN otherwise; max() alone could drop a NaN.
    const float finite = simd::reduce_add(simd::add(simd::sub(x0, x0), simd::sub(x1, x1)));
    const float amax = simd::reduce_max(largest);
    const float scale = amax / static_cast<float>(limit);
    const float inverse = static_cast<float>(limit) / amax;
    if (finite != 0.0f || !(inverse <= std::numeric_limits<float>::max())) {
        // Not finite, or all zero, or so small (below 1e-34) that its reciprocal overflows: a is zero.
        std::fill_n(a, 32, 0);
        return finite != 0.0f ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    }
    // None is beyond the limit: two roundings make amax * inverse larger by 2^-22 of it at most, less than a half.
    simd::store(a, simd::to_i32(simd::mul(x0, simd::set1(inverse))));
    simd::store(a + 16, simd::to_i32(simd::mul(x1, simd::set1(inverse))));
    return scale;
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
    alignas(64) int32_t a[32];
    alignas(64) float padded[32];
    for (int64_t k = 0; k < width; k += 32) {
        const float* block = x + k;
        if (k + 32 > width) {
            std::fill_n(padded, 32, 0.0f);
            std::copy_n(block, width - k, padded);
            block = padded;
        }
        const int64_t b = k / 32;
        scale[b] = quantize_block(block, limit, a);
        if (high) {
            for (int q = 0; q < 8; ++q) simd::encode_quad(quads + 2 * k + 8 * q, a + 4 * q);
        } else {
            simd::store_i8(reinterpret_cast<int8_t*>(quads + k), simd::load(a));
            simd::store_i8(reinterpret_cast<int8_t*>(quads + k + 16), simd::load(a + 16));
        }
        // Sums are below 2^24, so floats hold them exactly.
        const float half[2] = {simd::reduce_add(simd::to_f32(simd::load(a))),
                               simd::reduce_add(simd::to_f32(simd::load(a + 16)))};
        for (int h = 0; h < 2; ++h) {
            sum16[2 * b + h] = static_cast<int32_t>(half[h]);
            fsum16[2 * b + h] = scale[b] * half[h];
        }
        sum32[b] = static_cast<int32_t>(half[0] + half[1]);
        fsum32[b] = scale[b] * (half[0] + half[1]);
    }
}

}  // namespace clarion
