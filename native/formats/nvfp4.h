// NVFP4: 64 weights in 36 bytes.  s: 4 bytes, an unsigned e4m3 float for each 16 columns | q: 32 bytes, 8 for
// each 16 columns, low nibbles first, e2m1 floats as in MXFP4.  weight = s / 2 * e2m1[q]
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct NVFP4 {
    static constexpr int id = 40;
    static constexpr const char* name = "NVFP4";
    static constexpr int block = 64, bytes = 36;
    static constexpr int group = 16, live = 4;
    static constexpr int32_t offset = 12, largest = 24;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        for (int r = 0; r < 16; ++r)
            for (int64_t b = 0; b < blocks; ++b)
                for (int g = 0; g < 4; ++g)
                    scale[(4 * b + g) * 16 + r] = codebooks.half_e4m3[panel[16 * bytes * b + 4 * r + g]];
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        const simd::u8x64 nibble = simd::set1_u8(15), codes = simd::repeat_16(codebooks.e2m1);
        const auto low = [&](auto x) { return simd::look_up(codes, simd::bit_and(x, nibble)); };
        const auto high = [&](auto x) { return simd::look_up(codes, simd::shift_right_u8<4>(x)); };
        sink.begin();
        unrolled<2>([&]<int half>() CLARION_INLINE {
            typename Sink::Vector q[4];
            load_quads(panel, at + 4 + 16 * half, q);
            unrolled<2>([&]<int g>() CLARION_INLINE {
                constexpr int quad = 8 * half + 4 * g;
                sink.template put2<quad>(low(q[2 * g]), low(q[2 * g + 1]));
                sink.template put2<quad + 2>(high(q[2 * g]), high(q[2 * g + 1]));
            });
        });
        sink.finish();
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        for (int g = 0; g < 4; ++g) {
            scale[g] = codebooks.half_e4m3[block[g]];
            unpack_nibbles<8>(block + 4 + 8 * g, u + 16 * g);
        }
        for (int i = 0; i < 64; ++i) u[i] = codebooks.e2m1[u[i]];
    }
};

}  // namespace clarion
