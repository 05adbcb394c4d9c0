// F32: IEEE single precision, as it is.
#pragma once

#include "formats/format.h"

namespace clarion {

struct F32 {
    static constexpr int id = 0;
    static constexpr const char* name = "F32";
    static constexpr int block = 1, bytes = 4;

    static simd::f32x16 read(const uint8_t* p) {
        return with_numbers<float>(p, [](const float* x) { return simd::load(x); });
    }
    static void dequantize(const uint8_t* row, int64_t n, float* x) {
        for (int64_t i = 0; i < n; ++i) x[i] = from_file<float>(row + 4 * i);
    }
};

}  // namespace clarion
