#include "kernels/activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/lanes.h"
#include "kernels/octets.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// A row's blocks are taken in groups of so many, one in each lane.
constexpr int64_t lanes = simd::lanes;

// Where the blocks of a group begin. The last block of a row may be padded, in `padded`.
struct Group {
    const float* block[lanes];
    int64_t n;

    Group(const float* x, int64_t width, int64_t first, float* padded) {
        n = std::min(lanes, (width + 31) / 32 - first);
        for (int64_t i = 0; i < n; ++i) block[i] = x + 32 * (first + i);
        if (first + n <= width / 32) return;
        std::fill_n(padded, 32, 0.0f);
        std::copy_n(block[n - 1], width % 32, padded);
        block[n - 1] = padded;
    }
};

// The largest |x| of each block, in its lane. `finite` becomes false where an element is not.
simd::f32x16 largest(const Group& group, bool& finite) {
    simd::f32x16 each[lanes], products0 = simd::zero(),
                              products1 = simd::zero();  // by zero: NaN where not finite
    for (int64_t i = 0; i < group.n; ++i) {
        const simd::f32x16 x0 = simd::load(group.block[i]), x1 = simd::load(group.block[i] + 16);
        each[i] = simd::max(simd::abs(x0), simd::abs(x1));
        products0 = simd::fma(x0, simd::zero(), products0);
        products1 = simd::fma(x1, simd::zero(), products1);
    }
    finite &= simd::reduce_add(simd::add(products0, products1)) == 0.0f;
    return max_across(each, static_cast<int>(group.n));
}

constexpr float zeros[32] = {};
bool all_finite(const float* block) {
    for (int64_t i = 0; i < 32; ++i)
        if (!std::isfinite(block[i])) return false;
    return true;
}

// Where the instruction set has no products of them (simd/tile.h), there are no such rows.
template <typename Half>
void encode_bf16(const float* x, int64_t width, Half* row) {
    if constexpr (requires { store_bf16(row, simd::f32x16{}); })
        for (int64_t k = 0; k < width; k += simd::lanes) store_bf16(row + k, load_n(x + k, width - k));
}

void encode_integers(Kind kind, const float* x, int64_t width, std::byte* row) {
    const EncodedLayout layout(kind, width);
    const bool high = kind == Kind::high;
    const float limit = high ? simd::high_limit : 127;
    auto* quads = reinterpret_cast<uint8_t*>(row);
    auto* scales = reinterpret_cast<float*>(row + layout.scale);
    auto* fsum32 = reinterpret_cast<float*>(row + layout.fsum32);
    auto* fsum16 = reinterpret_cast<float*>(row + layout.fsum16);
    auto* sum32 = reinterpret_cast<int32_t*>(row + layout.sum32);
    auto* sum16 = reinterpret_cast<int32_t*>(row + layout.sum16);
    alignas(64) float padded[32];
    const int64_t n_blocks = layout.padded / 32;

    // The largest of all blocks, which wait where their scales will be.
    bool finite = true;
    simd::f32x16 squares = simd::zero();
    for (int64_t first = 0; first < n_blocks; first += lanes) {
        const Group group(x, width, first, padded);
        store_n(scales + first, largest(group, finite), group.n);
        const simd::f32x16 amax = load_n(scales + first, group.n);
        squares = simd::add(squares, simd::mul(amax, amax));
    }
    float least = std::numeric_limits<float>::infinity();
    if (layout.most_wide > 0 && finite)
        least = simd::reduce_add(squares) * (static_cast<float>(octet_share) / static_cast<float>(n_blocks));

    OctetWriter octets(layout, row);
    for (int64_t first = 0; first < n_blocks; first += lanes) {
        Group group(x, width, first, padded);
        alignas(64) float amax[lanes], scale[lanes], inverse[lanes], half[2 * lanes], rest[lanes][32];
        for (int64_t i = 0; i < lanes; ++i) amax[i] = scales[first + (i < group.n ? i : 0)];
        const float top = simd::reduce_max(simd::load(amax));
        for (int64_t i = 0; top * top > least && i < group.n; ++i)
            if (amax[i] * amax[i] > least) octets.take(first + i, least, group.block[i], rest[i], amax[i]);
        const simd::f32x16 by = simd::div(simd::set1(limit), simd::load(amax));
        simd::store(scale, simd::div(simd::load(amax), simd::set1(limit)));
        simd::store(inverse, by);
        // None is beyond the limit: two roundings make amax * inverse larger by 2^-22 of it at most, less than a half.
        const bool ordinary = finite && simd::reduce_max(by) <= std::numeric_limits<float>::max();
        for (int64_t i = 0; !ordinary && i < group.n; ++i) {
            const bool ok = all_finite(group.block[i]);
            if (ok && inverse[i] <= std::numeric_limits<float>::max()) continue;
            // Not finite, or all zero, or so small (below 1e-34) that its reciprocal overflows: a is zero.
            group.block[i] = zeros;
            inverse[i] = 0.0f;
            scale[i] = ok ? 0.0f : std::numeric_limits<float>::quiet_NaN();
        }
        simd::f32x16 sums[2 * lanes];
        for (int64_t i = 0; i < group.n; ++i) {
            const simd::f32x16 factor = simd::set1(inverse[i]);
            uint8_t* to = quads + (first + i) * (high ? 64 : 32);
            const simd::i32x16 a0 = simd::to_i32(simd::mul(simd::load(group.block[i]), factor));
            const simd::i32x16 a1 = simd::to_i32(simd::mul(simd::load(group.block[i] + 16), factor));
            if (high) {
                simd::encode_quads(to, a0);
                simd::encode_quads(to + 32, a1);
            } else {
                simd::store_i8(reinterpret_cast<int8_t*>(to), a0);
                simd::store_i8(reinterpret_cast<int8_t*>(to + 16), a1);
            }
            sums[2 * i] = simd::to_f32(a0);
            sums[2 * i + 1] = simd::to_f32(a1);
        }
        // Sums are below 2^24, so floats hold them exactly.
        alignas(64) int32_t whole[2 * lanes];
        for (int64_t i = 0; i < 2 * group.n; i += lanes) {
            const simd::f32x16 sum = add_across(sums + i, static_cast<int>(std::min(lanes, 2 * group.n - i)));
            simd::store(half + i, sum);
            simd::store(whole + i, simd::to_i32(sum));
        }
        for (int64_t i = 0; i < group.n; ++i) {
            const int64_t b = first + i;
            const float s = scale[i], h0 = half[2 * i], h1 = half[2 * i + 1];
            scales[b] = s;
            sum16[2 * b] = whole[2 * i];
            sum16[2 * b + 1] = whole[2 * i + 1];
            fsum16[2 * b] = s * h0;
            fsum16[2 * b + 1] = s * h1;
            sum32[b] = whole[2 * i] + whole[2 * i + 1];
            fsum32[b] = s * (h0 + h1);
        }
    }
    if (!high) octets.finish(row, layout);
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
    encode_integers(kind, x, width, row);
}

}  // namespace clarion
