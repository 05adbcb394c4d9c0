// F32: IEEE single precision, as it is.
#pragma once

#include "formats/format.h"

namespace clarion {

struct F32 {
    static constexpr int id = 0;
    static constexpr const char* name = "F32";
    static constexpr int block = 1, bytes = 4;

    static simd::f32x16 read(const uint8_t* row, int64_t k, int n) {
        if (n == 16) return simd::load(reinterpret_cast<const float*>(row) + k);
        alignas(64) float x[16] = {};
        std::memcpy(x, row + 4 * k, 4 * static_cast<size_t>(n));
        return simd::load(x);
    }
    static void dequantize(const uint8_t* row, int64_t n, float* x) {
        std::memcpy(x, row, 4 * static_cast<size_t>(n));
    }
};

}  // namespace clarion
