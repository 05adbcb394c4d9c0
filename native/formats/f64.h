// F64: IEEE double precision, rounded to single when read.
#pragma once

#include "formats/format.h"

namespace clarion {

struct F64 {
    static constexpr int id = 28;
    static constexpr const char* name = "F64";
    static constexpr int block = 1, bytes = 8;

    static simd::f32x16 read(const uint8_t* p) {
        alignas(64) float x[16];
        dequantize(p, 16, x);
        return simd::load(x);
    }
    static void dequantize(const uint8_t* row, int64_t n, float* x) {
        for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(from_file<double>(row + 8 * i));
    }
};

}  // namespace clarion
