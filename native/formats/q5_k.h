// Q5_K: 256 weights in 176 bytes.  d, dmin, 8 scales and minima: 16 bytes (k_scales.h) | h: 32 bytes | q: 128
// bytes. q as in Q4_K; bit j of h[i] is the fifth bit of column i of group j.  weight = d * s * u - dmin * m
#pragma once

#include "formats/k_scales.h"

namespace clarion {

struct Q5_K {
    static constexpr int id = 13;
    static constexpr const char* name = "Q5_K";
    static constexpr int block = 256, bytes = 176;
    static constexpr int group = 32, live = 2;
    static constexpr int32_t offset = 0, largest = 31;
    static constexpr bool has_min = true;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min) {
        k_scales::decode(panel, blocks, bytes, scale, neg_min);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        using Vector = typename Sink::Vector;
        Vector h[8];
        load_quads(panel, at + 16, h);
        load_quads(panel, at + 32, h + 4);
        for (int pair = 0; pair < 4; ++pair) {
            sink.begin();
            unrolled<2>([&]<int half>() CLARION_INLINE {
                Vector q[4];
                load_quads(panel, at + 48 + 32 * pair + 16 * half, q);
                unrolled<2>([&]<int c>() CLARION_INLINE {
                    constexpr int quad = 4 * half + 2 * c;
                    const Vector q0 = q[2 * c], q1 = q[2 * c + 1];
                    Vector &h0 = h[4 * half + 2 * c], &h1 = h[4 * half + 2 * c + 1];
                    sink.template put2<quad>(low(q0, h0), low(q1, h1));
                    sink.template put2<quad + 8>(high(q0, h0), high(q1, h1));
                    h0 = simd::shift_right_u8<2>(h0);
                    h1 = simd::shift_right_u8<2>(h1);
                });
            });
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float* neg_min) {
        k_scales::unpack(block, scale, neg_min);
        for (int pair = 0; pair < 4; ++pair) unpack_nibbles<32>(block + 48 + 32 * pair, u + 64 * pair);
        for (int g = 0; g < 8; ++g)
            for (int i = 0; i < 32; ++i) u[32 * g + i] |= static_cast<uint8_t>((block[16 + i] >> g & 1) << 4);
    }

  private:
    // Bit 0 of h becomes the fifth bit of the low nibbles, bit 1 that of the high ones.
    template <typename Vector>
    static Vector low(Vector q, Vector h) {
        return simd::bit_or(simd::bit_and(q, simd::set1_u8(15)),
                            simd::bit_and(simd::shift_left_u8<4>(h), simd::set1_u8(16)));
    }
    template <typename Vector>
    static Vector high(Vector q, Vector h) {
        return simd::bit_or(simd::shift_right_u8<4>(q),
                            simd::bit_and(simd::shift_left_u8<3>(h), simd::set1_u8(16)));
    }
};

}  // namespace clarion
