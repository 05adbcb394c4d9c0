// TQ2_0: 256 ternary weights in 66 bytes.  q: 64 bytes, columns as unpack_pairs takes them | d: f16.
// weight = d * (q - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct TQ2_0 {
    static constexpr int id = 35;
    static constexpr const char* name = "TQ2_0";
    static constexpr int block = 256, bytes = 66;
    static constexpr int group = 32, live = 4;
    static constexpr int32_t offset = 1;
    static constexpr bool has_min = false, wide = false;
    static constexpr bool hot = simd::live_groups >= 16;

    static void scales(Panel panel, int64_t blocks, float* scale, float*) {
        float d[16 * 16];  // [blocks][16]
        gather_f16(panel, 64, 66, blocks, d);
        for (int64_t g = 0; g < 8 * blocks; ++g) simd::store(scale + 16 * g, simd::load(d + 16 * (g / 8)));
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(Panel panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) {
            sink.begin();
            unrolled<2>([&]<int i>() CLARION_INLINE {  // columns 16 * i .. of each group
                simd::u8x64 q[4];
                simd::transpose_16(panel, at + 32 * half + 16 * i, q);
                unrolled<2>([&]<int c>() CLARION_INLINE {
                    unrolled<4>([&]<int g>() CLARION_INLINE {
                        sink.template put2<8 * g + 4 * i + 2 * c>(pair<g>(q[2 * c]), pair<g>(q[2 * c + 1]));
                    });
                });
            });
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<8>(f16_at(block + 64), scale);
        unpack_pairs(block, u);
    }

  private:
    template <int g>
    static simd::u8x64 pair(simd::u8x64 q) {
        return simd::bit_and(simd::as_u8(simd::shift_right<2 * g>(simd::as_i32(q))), simd::set1_u8(3));
    }
};

}  // namespace clarion
