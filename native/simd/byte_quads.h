// Activations of 16 bits for processors whose products are of bytes.
#pragma once

#include <cstdint>

namespace clarion::simd {

// a = 256 * upper + lower with both in [-128, 127]: four upper bytes, then four lower ones.
inline void encode_quad(uint8_t* quad, const int32_t a[4]) {
    for (int j = 0; j < 4; ++j) {
        const auto lower = static_cast<int8_t>(a[j]);
        quad[j] = static_cast<uint8_t>((a[j] - lower) >> 8);
        quad[4 + j] = static_cast<uint8_t>(lower);
    }
}

}  // namespace clarion::simd
