// F32: IEEE single precision, as it is.
#pragma once

#include "formats/floats.h"

namespace clarion::f32 {

inline void decode(const uint8_t* const rows[16], int64_t n, float* tile) {
    floats::decode(rows, n, tile, [](const uint8_t* row, int64_t k, int columns) {
        alignas(64) float x[16] = {};
        std::memcpy(x, row + 4 * k, 4 * static_cast<size_t>(columns));
        return simd::load(x);
    });
}

inline void dequantize(const uint8_t* row, int64_t n, float* x) {
    std::memcpy(x, row, 4 * static_cast<size_t>(n));
}

inline constexpr Format format{
    .id = 0, .name = "F32", .block = 1, .bytes = 4, .decode_f32 = decode, .dequantize = dequantize};

}  // namespace clarion::f32
