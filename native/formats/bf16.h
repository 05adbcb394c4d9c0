// BF16: the upper half of an IEEE single.
#pragma once

#include "formats/format.h"

namespace clarion {

struct BF16 {
    static constexpr int id = 30;
    static constexpr const char* name = "BF16";
    static constexpr int block = 1, bytes = 2;

    static simd::f32x16 read(const uint8_t* p) {
        return with_numbers<uint16_t>(p, [](const uint16_t* x) { return simd::load_bf16(x); });
    }
    static void dequantize(const uint8_t* row, int64_t n, float* x) {
        for (int64_t i = 0; i < n; ++i) x[i] = simd::bf16_to_f32(load_u16(row + 2 * i));
    }
};

}  // namespace clarion
