// F32: IEEE single precision, as it is.
#pragma once

#include "formats/format.h"

namespace clarion {

struct F32 {
    static constexpr int id = 0;
    static constexpr const char* name = "F32";
    static constexpr int block = 1, bytes = 4;

    static simd::f32x16 read(const uint8_t* p) { return simd::load(reinterpret_cast<const float*>(p)); }
    static void dequantize(const uint8_t* row, int64_t n, float* x) {
        std::memcpy(x, row, 4 * static_cast<size_t>(n));
    }
};

}  // namespace clarion
