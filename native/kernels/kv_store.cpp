#include "kernels/kv_store.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/lanes.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using simd::f32x16;

uint16_t f32_to_bf16(float x) {
    const auto bits = std::bit_cast<uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// 16 elements as the format holds them.
void convert(KvFormat format, void* out, f32x16 x) {
    if (format == KvFormat::f16) {
        simd::store_f16(static_cast<uint16_t*>(out), x);
    } else if (format == KvFormat::f32) {
        simd::store(static_cast<float*>(out), x);
    } else {
        float lanes[kv_lanes];
        simd::store(lanes, x);
        for (int i = 0; i < kv_lanes; ++i) static_cast<uint16_t*>(out)[i] = f32_to_bf16(lanes[i]);
    }
}

struct Block {
    uint16_t scale;  // f16
    uint8_t u[kv_block];
};

// n elements, and zeros behind them.
Block quantize(KvFormat format, const float* x, int64_t n) {
    constexpr int half = kv_block / 2;
    float padded[kv_block] = {};
    std::copy_n(x, std::min(n, kv_block), padded);
    float greatest = 0.0f, finite = 0.0f;
    for (const float e : padded) {
        if (std::fabs(e) > std::fabs(greatest)) greatest = e;
        finite += e - e;  // NaN where it is not finite
    }
    const bool bytes = format == KvFormat::q8_0;
    const float ideal = bytes ? std::fabs(greatest) / 127.0f : greatest / -8.0f;
    const int32_t offset = kv_offset(format);
    Block block{simd::f32_to_f16(ideal + finite), {}};
    const float scale = simd::f16_to_f32(block.scale);
    const float inverse = 1.0f / scale;
    if (!(std::fabs(inverse) <= 0x1p24f &&
          inverse != 0.0f)) {  // zero, infinite or NaN; 2^-24 is the least half
        std::fill_n(block.u, kv_block, static_cast<uint8_t>(offset));
        if (scale != 0.0f) block.scale = 0x7e00;
        return block;
    }
    const f32x16 least = simd::set1(bytes ? -127.0f : -8.0f), most = simd::set1(bytes ? 127.0f : 7.0f);
    for (int h = 0; h < 2; ++h) {
        const f32x16 q = simd::mul(simd::load(padded + h * half), simd::set1(inverse));
        const simd::i32x16 u =
            simd::add(simd::to_i32(simd::min(simd::max(q, least), most)), simd::set1(offset));
        simd::store_i8(reinterpret_cast<int8_t*>(block.u + h * half), u);
    }
    return block;
}

void set_scale(std::byte* matrix, int64_t index, uint16_t scale) {
    std::memcpy(matrix + 2 * index, &scale, 2);
}

uint8_t nibbles(uint8_t low, uint8_t high) { return static_cast<uint8_t>(low | high << 4); }

}  // namespace

void store_keys(KvFormat format, std::byte* matrix, int64_t dim, int64_t slot, const float* x) {
    const int64_t group = slot / kv_lanes, lane = slot % kv_lanes;
    if (!is_integer(format)) {
        const int64_t size = kv_element_bytes(format);
        std::byte* column = matrix + (group * dim * kv_lanes + lane) * size;
        for (int64_t d = 0; d < dim; d += kv_lanes) {
            std::byte row[4 * kv_lanes];
            convert(format, row, load_n(x + d, dim - d));
            for (int64_t i = 0; i < std::min(kv_lanes, dim - d); ++i)
                std::memcpy(column + (d + i) * kv_lanes * size, row + i * size, static_cast<size_t>(size));
        }
        return;
    }
    const int64_t blocks = kv_blocks(dim), vectors = format == KvFormat::q8_0 ? 8 : 4;
    for (int64_t b = 0; b < blocks; ++b) {
        const Block block = quantize(format, x + b * kv_block, dim - b * kv_block);
        const int64_t place = group * blocks + b;
        set_scale(matrix, place * kv_lanes + lane, block.scale);
        std::byte* out = matrix + kv_scale_bytes(dim) + place * vectors * 64 + lane * 4;
        for (int64_t v = 0; v < vectors; ++v) {
            uint8_t four[4];
            for (int i = 0; i < 4; ++i)
                four[i] =
                    vectors == 8 ? block.u[4 * v + i] : nibbles(block.u[8 * v + i], block.u[8 * v + 4 + i]);
            std::memcpy(out + v * 64, four, 4);
        }
    }
}

void store_values(KvFormat format, std::byte* matrix, int64_t dim, int64_t slot, const float* x) {
    if (!is_integer(format)) {
        const int64_t size = kv_element_bytes(format);
        for (int64_t d = 0; d < dim; d += kv_lanes)
            convert(format, matrix + (d * kv_page + slot * kv_lanes) * size, load_n(x + d, dim - d));
        return;
    }
    const int64_t quad = slot / 4, panel = kv_page * kv_lanes;  // bytes of 16 dims
    for (int64_t b = 0; b < kv_blocks(dim); ++b) {
        const Block block = quantize(format, x + b * kv_block, dim - b * kv_block);
        set_scale(matrix, b * kv_page + slot, block.scale);
        auto* out = reinterpret_cast<uint8_t*>(matrix + kv_scale_bytes(dim)) + quad * 64 + slot % 4;
        if (format == KvFormat::q8_0)
            for (int64_t i = 0; i < kv_block; ++i)
                out[(2 * b + i / kv_lanes) * panel + i % kv_lanes * 4] = block.u[i];
        else
            for (int64_t i = 0; i < kv_lanes; ++i)
                out[b * panel + i * 4] = nibbles(block.u[i], block.u[kv_lanes + i]);
    }
}

}  // namespace clarion
