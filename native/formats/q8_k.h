// Q8_K: 256 weights in 292 bytes.  d: f32 | q: 256 signed bytes | sums of q, not needed here: 16 times i16.
// weight = d * q
#pragma once

#include <bit>

#include "formats/format.h"

namespace clarion {

struct Q8_K {
    static constexpr int id = 15;
    static constexpr const char* name = "Q8_K";
    static constexpr int block = 256, bytes = 292;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 128, largest = 255;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        for (int64_t b = 0; b < blocks; ++b)
            with_numbers<float>(panel + 16 * bytes * b, [&](const float* d) {
                for (int g = 0; g < 8; ++g) simd::store(scale + 16 * (8 * b + g), simd::load(d));
                return simd::zero();
            });
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int g = 0; g < 8; ++g) put_signed_bytes(panel, at + 4 + 32 * g, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        repeat_scale<8>(std::bit_cast<float>(load_u32(block)), scale);
        for (int i = 0; i < 256; ++i) u[i] = block[4 + i] ^ 0x80;
    }
};

}  // namespace clarion
