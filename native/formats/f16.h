// F16: IEEE half precision.
#pragma once

#include "formats/floats.h"

namespace clarion::f16 {

inline void decode(const uint8_t* const rows[16], int64_t n, float* tile) {
    floats::decode(rows, n, tile, [](const uint8_t* row, int64_t k, int columns) {
        alignas(32) uint16_t x[16];
        floats::first_u16(row + 2 * k, columns, x);
        return simd::load_f16(x);
    });
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    for (int64_t i = 0; i < n; ++i) x[i] = simd::f16_to_f32(load_u16(row + 2 * i));
}

inline constexpr Format format{
    .id = 1, .name = "F16", .block = 1, .bytes = 2, .decode_f32 = decode, .dequantize = dequantize};

}  // namespace clarion::f16
