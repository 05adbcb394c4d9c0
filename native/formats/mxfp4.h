// MXFP4: 32 weights in 17 bytes.  e: an exponent | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31,
// each an e2m1 float, its value doubled in the codebook.  weight = 2^(e - 128) * e2m1[q]
#pragma once

#include <bit>

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct MXFP4 {
    static constexpr int id = 39;
    static constexpr const char* name = "MXFP4";
    static constexpr int block = 32, bytes = 17;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 12, largest = 24;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        // Neither of two factors overflows, and a product below the smallest normal number is still exact.
        const simd::i32x16 bias = simd::set1(int32_t{63});
        for (int64_t b = 0; b < blocks; ++b) {
            const simd::i32x16 e = simd::load_u8(panel + 16 * bytes * b), half = simd::shift_right<1>(e);
            const simd::i32x16 x = simd::add(half, bias), y = simd::add(simd::sub(e, half), bias);
            simd::store(scale + 16 * b, simd::mul(simd::as_f32(simd::shift_left<23>(x)),
                                                  simd::as_f32(simd::shift_left<23>(y))));
        }
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_codes(panel, at + 1, codebooks.e2m1, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const uint32_t e = block[0];
        *scale = std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : (e - 1) << 23);
        unpack_nibbles<16>(block + 1, u);
        for (int i = 0; i < 32; ++i) u[i] = codebooks.e2m1[u[i]];
    }

    // A unit of 32 columns from 16 bytes of nibbles that index a codebook.
    template <typename Sink>
    [[gnu::always_inline]] static void put_codes(const uint8_t* panel, int64_t at, const uint8_t* codebook,
                                                 Sink& sink) {
        sink.begin();
        const simd::u8x64 nibble = simd::set1_u8(15), codes = simd::repeat_16(codebook);
        typename Sink::Vector q[4];
        load_quads(panel, at, q);
        const auto low = [&](auto x) { return simd::look_up(codes, simd::bit_and(x, nibble)); };
        const auto high = [&](auto x) { return simd::look_up(codes, simd::shift_right_u8<4>(x)); };
        sink.template put2<0>(low(q[0]), low(q[1]));
        sink.template put2<2>(low(q[2]), low(q[3]));
        sink.template put2<4>(high(q[0]), high(q[1]));
        sink.template put2<6>(high(q[2]), high(q[3]));
        sink.finish();
    }
};

}  // namespace clarion
