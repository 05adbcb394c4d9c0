// Q3_K: 256 weights in 110 bytes.  h: 32 bytes | q: 64 bytes | s: 12 bytes | d: f16.  Columns lie in q as
// unpack_pairs takes them; bit k of h[i] is the third bit of column 32 k + i. Each 16 columns share a scale of
// six bits: four in s[0..7], low nibbles first; two in s[8..11], lowest first.
// weight = d * (scale - 32) * (u - 4)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q3_K {
    static constexpr int id = 11;
    static constexpr const char* name = "Q3_K";
    static constexpr int block = 256, bytes = 110;
    static constexpr bool odd_last = true;  // d
    static constexpr int group = 16, live = 8, runs = 2;
    static constexpr int32_t offset = 4, largest = 7;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        const simd::i32x16 center = simd::set1(int32_t{32});
        for (int64_t b = 0; b < blocks; ++b) {
            simd::u8x64 s[4];
            load_quads(panel, bytes * b + 92, s);  // from s[1] on
            const simd::f32x16 d = first_f16(panel, bytes * b + 108);
            simd::u8x64 high = s[3];
            for (int part = 0; part < 4; ++part, scale += 64) {  // four groups
                const simd::u8x64 low = part < 2 ? simd::bit_and(s[1 + part], simd::set1_u8(15))
                                                 : simd::shift_right_u8<4>(s[part - 1]);
                const simd::i32x16 v = simd::as_i32(
                    simd::bit_or(low, simd::bit_and(simd::shift_left_u8<4>(high), simd::set1_u8(0x30))));
                high = simd::shift_right_u8<2>(high);
                unrolled<4>([&]<int j>() CLARION_INLINE {
                    simd::store(scale + 16 * j, simd::mul(d, simd::to_f32(simd::sub(byte_of<j>(v), center))));
                });
            }
        }
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) {
            sink.begin();
            for (int run = 0; run < 2; ++run) {
                typename Sink::Vector q[4], h[4];
                load_quads(panel, at + 32 + 32 * half + 16 * run, q);
                load_quads(panel, at + 16 * run, h);
                if (half != 0)
                    unrolled<4>([&]<int c>() CLARION_INLINE { h[c] = simd::shift_right_u8<4>(h[c]); });
                unrolled<2>([&]<int c>() CLARION_INLINE {
                    unrolled<4>([&]<int g>() CLARION_INLINE {
                        sink.template put2<8 * g + 2 * c>(three<g>(q[2 * c], h[2 * c]),
                                                          three<g>(q[2 * c + 1], h[2 * c + 1]));
                    });
                });
                sink.next_run();
            }
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        const float d = f16_at(block + 108);
        const uint8_t* s = block + 96;
        for (int g = 0; g < 16; ++g) {
            const int bits = (s[g % 8] >> 4 * (g / 8) & 15) | (s[8 + g % 4] >> 2 * (g / 4) & 3) << 4;
            scale[g] = d * static_cast<float>(bits - 32);
        }
        unpack_pairs(block + 32, u);
        for (int k = 0; k < 8; ++k)
            for (int i = 0; i < 32; ++i) u[32 * k + i] |= static_cast<uint8_t>((block[i] >> k & 1) << 2);
    }

  private:
    template <int g, typename Vector>
    static Vector three(Vector q, Vector h) {
        const auto low = simd::shift_right<2 * g>(simd::as_i32(q)), bits = simd::as_i32(h);
        const auto high =
            g < 2 ? simd::shift_left < g<2 ? 2 - g : 0>(bits) : simd::shift_right < g<2 ? 0 : g - 2>(bits);
        return simd::bit_or(simd::bit_and(simd::as_u8(low), simd::set1_u8(3)),
                            simd::bit_and(simd::as_u8(high), simd::set1_u8(4)));
    }
};

}  // namespace clarion
