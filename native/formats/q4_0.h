// Q4_0: 32 weights in 18 bytes.  d: f16 | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31.
// weight = d * (q - 8)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q4_0 {
    static constexpr int id = 2;
    static constexpr const char* name = "Q4_0";
    static constexpr int block = 32, bytes = 18;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 8;
    static constexpr bool has_min = false, wide = false, hot = true;

    static void scales(Panel panel, int64_t blocks, float* scale, float*) {
        gather_f16(panel, 0, 18, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(Panel panel, int64_t at, Sink& sink) {
        sink.begin();
        const simd::u8x64 nibble = simd::set1_u8(15);
        simd::u8x64 q[4];
        simd::transpose_16(panel, at + 2, q);
        sink.template put2<0>(simd::bit_and(q[0], nibble), simd::bit_and(q[1], nibble));
        sink.template put2<2>(simd::bit_and(q[2], nibble), simd::bit_and(q[3], nibble));
        sink.template put2<4>(simd::shift_right_u8<4>(q[0]), simd::shift_right_u8<4>(q[1]));
        sink.template put2<6>(simd::shift_right_u8<4>(q[2]), simd::shift_right_u8<4>(q[3]));
        sink.finish();
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        *scale = f16_at(block);
        unpack_nibbles<16>(block + 2, u);
    }
};

}  // namespace clarion
