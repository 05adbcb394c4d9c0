// Rows whose length is no multiple of 16.
#pragma once

#include <cstdint>

#include "simd/simd.h"

namespace clarion {

// The first n elements, all 16 where there are so many; the other lanes read as zero and are not written.
inline simd::f32x16 load_n(const float* p, int64_t n) {
    return n >= simd::lanes ? simd::load(p) : simd::load_first(p, static_cast<int>(n));
}
inline void store_n(float* p, simd::f32x16 x, int64_t n) {
    if (n >= simd::lanes)
        simd::store(p, x);
    else
        simd::store_first(p, x, static_cast<int>(n));
}

}  // namespace clarion
