// IQ4_XS: 256 weights in 136 bytes.  d: f16 | h: u16 | l: 4 bytes | q: 128 bytes, each 16 as in IQ4_NL.
// Group g's scale s has its low four bits in nibble g of l and its high two in bits 2g of h.
// weight = d * (s - 32) * codebook[q]
#pragma once

#include "formats/iq4_nl.h"

namespace clarion {

struct IQ4_XS {
    static constexpr int id = 23;
    static constexpr const char* name = "IQ4_XS";
    static constexpr int block = 256, bytes = 136;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 127, largest = 240;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        const simd::i32x16 low4 = simd::set1(int32_t{15}), bits45 = simd::set1(int32_t{0x30});
        const simd::i32x16 center = simd::set1(int32_t{32});
        for (int64_t b = 0; b < blocks; ++b) {
            simd::u8x64 header[4];
            load_quads(panel, bytes * b, header);
            const simd::f32x16 d = simd::f16_low(header[0]);
            simd::i32x16 h = simd::shift_right<12>(simd::as_i32(header[0])), l = simd::as_i32(header[1]);
            for (int g = 0; g < 8; ++g, scale += 16) {
                const simd::i32x16 s = simd::bit_or(simd::bit_and(l, low4), simd::bit_and(h, bits45));
                simd::store(scale, simd::mul(d, simd::to_f32(simd::sub(s, center))));
                l = simd::shift_right<4>(l);
                h = simd::shift_right<2>(h);
            }
        }
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int g = 0; g < 8; ++g) MXFP4::put_codes(panel, at + 8 + 16 * g, codebooks.iq4, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const float d = f16_at(block);
        const uint32_t h = load_u16(block + 2), l = load_u32(block + 4);
        for (int g = 0; g < 8; ++g) {
            const auto s = static_cast<int>((l >> 4 * g & 15) | (h >> 2 * g & 3) << 4);
            scale[g] = d * static_cast<float>(s - 32);
            IQ4_NL::unpack_codes(block + 8 + 16 * g, u + 32 * g);
        }
    }
};

}  // namespace clarion
