// Q6_K: 256 weights in 210 bytes.  l: 128 bytes | h: 64 bytes | s: 16 signed bytes | d: f16.
// Each half of the block (128 columns, 64 bytes of l, 32 of h) holds four runs of 32 columns: run k takes its
// low four bits from l[32 * (k % 2) + i], the low nibble for k < 2 and the high one else, and its high two
// from bits 2k of h[i]. Each 16 columns share a scale.  weight = d * s * (u - 32)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q6_K {
    static constexpr int id = 14;
    static constexpr const char* name = "Q6_K";
    static constexpr int block = 256, bytes = 210;
    static constexpr bool odd_last = true;  // d
    static constexpr int group = 16, live = 8, runs = 2;
    static constexpr int32_t offset = 32, largest = 63;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        for (int64_t b = 0; b < blocks; ++b, scale += 256) {
            simd::u8x64 s[4];
            load_quads(panel, bytes * b + 192, s);
            const simd::f32x16 d = first_f16(panel, bytes * b + 208);
            for (int c = 0; c < 4; ++c) {
                const simd::i32x16 v = simd::as_i32(s[c]);
                simd::store(scale + 64 * c, simd::mul(simd::to_f32(signed_byte_of<0>(v)), d));
                simd::store(scale + 64 * c + 16, simd::mul(simd::to_f32(signed_byte_of<1>(v)), d));
                simd::store(scale + 64 * c + 32, simd::mul(simd::to_f32(signed_byte_of<2>(v)), d));
                simd::store(scale + 64 * c + 48, simd::mul(simd::to_f32(signed_byte_of<3>(v)), d));
            }
        }
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) {
            sink.begin();
            for (int r = 0; r < 2; ++r) {
                put_run(panel, at, half, r, sink);
                sink.next_run();
            }
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* __restrict u, float* scale, float*) {
        const float d = f16_at(block + 208);
        for (int g = 0; g < 16; ++g) scale[g] = d * static_cast<float>(static_cast<int8_t>(block[192 + g]));
        unpack_pairs(block + 128, u);
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 64; ++i) {
                const int low = 128 * half + i, high = low + 64, l = block[64 * half + i];
                u[low] = static_cast<uint8_t>(u[low] << 4 | (l & 15));
                u[high] = static_cast<uint8_t>(u[high] << 4 | l >> 4);
            }
    }

  private:
    // Columns 16 r .. of each 32 of half a block.
    template <typename Sink>
    [[gnu::always_inline]] static void put_run(const uint8_t* panel, int64_t at, int half, int r,
                                               Sink& sink) {
        using Vector = typename Sink::Vector;
        const uint8_t* l = panel + 16 * (at + 64 * half + 16 * r);
        const uint8_t* h = panel + 16 * (at + 128 + 32 * half + 16 * r);
        unrolled<2>([&]<int c>() CLARION_INLINE {  // six vectors at a time: twelve registers of AVX2
            constexpr int quad = 2 * c, a = 64 * quad, b = a + 64, next = 16 * 32;
            const Vector l0 = load_rows<Vector>(l + a), l1 = load_rows<Vector>(l + b);
            const Vector m0 = load_rows<Vector>(l + next + a), m1 = load_rows<Vector>(l + next + b);
            const Vector h0 = load_rows<Vector>(h + a), h1 = load_rows<Vector>(h + b);
            sink.template put2<quad>(run<0>(l0, h0), run<0>(l1, h1));
            sink.template put2<quad + 8>(run<1>(m0, h0), run<1>(m1, h1));
            sink.template put2<quad + 16>(run<2>(l0, h0), run<2>(l1, h1));
            sink.template put2<quad + 24>(run<3>(m0, h0), run<3>(m1, h1));
        });
    }
    template <int k, typename Vector>
    static Vector run(Vector l, Vector h) {
        const Vector low = k < 2 ? simd::bit_and(l, simd::set1_u8(15)) : simd::shift_right_u8<4>(l);
        const simd::u8x64 high2 = simd::set1_u8(0x30);
        if constexpr (k == 3)
            return simd::bit_or(low, simd::bit_and(simd::shift_right_u8<2>(h), high2));
        else
            return simd::bit_or(low, simd::bit_and(simd::shift_left_u8<4 - 2 * k>(h), high2));
    }
};

}  // namespace clarion
