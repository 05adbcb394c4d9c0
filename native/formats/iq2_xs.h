// IQ2_XS: 256 weights in 74 bytes.  d: f16 | 32 times u16, for 8 columns each: 9 bits their index in a
// codebook, 7 bits of signs as in IQ2_XXS | s: 8 bytes, a nibble for each 16 columns.
// weight = d * (s + 1/2) / 4 * +-codebook[index]
#pragma once

#include "formats/grid.h"

namespace clarion {

struct IQ2_XS {
    static constexpr int id = 17;
    static constexpr const char* name = "IQ2_XS";
    static constexpr int block = 256, bytes = 74;
    static constexpr int group = 16;
    static constexpr int32_t offset = 64, largest = 107;
    static constexpr bool has_min = false;

    using Entry = uint64_t;
    static constexpr uint8_t shift = 0;
    static constexpr const Entry* grid() { return codebooks.iq2_xs; }
    static constexpr const Entry* magnitudes() { return codebooks.iq2_xs_magnitudes; }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        const simd::f32x16 d = first_f16(panel, at, 0.25f);
        for (int g = 0; g < 8; ++g) {
            const simd::i32x16 a = load_quad(panel, at + 2 + 8 * g), b = load_quad(panel, at + 6 + 8 * g);
            uint32_t* index = to.index + 32 * g;
            store_index(index, simd::bit_or(shifted_bits<0>(a, 511), shifted_bits<16>(b, 511 << 16)));
            store_index(index + 16, simd::bit_or(shifted_bits<-16>(a, 511), shifted_bits<0>(b, 511 << 16)));
            const simd::i32x16 low = simd::bit_or(shifted_bits<-9>(a, 0x7f), shifted_bits<-17>(a, 0x7f00));
            const simd::i32x16 high =
                simd::bit_or(shifted_bits<7>(b, 0x7f0000), shifted_bits<-1>(b, 0x7f000000));
            simd::store(to.flags + 16 * g, make_even(simd::bit_or(low, high)));
        }
        put_nibble_scales(load_quad(panel, at + 66), d, to.scale);
        put_nibble_scales(load_quad(panel, at + 70), d, to.scale + 128);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        unpack_scales(f16_at(block), block + 66, scale);
        for (int i = 0; i < 32; ++i) {
            const int q = load_u16(block + 2 + 2 * i);
            put_signed<offset>(u + 8 * i, codebooks.iq2_xs[q & 511], codebooks.even_signs[q >> 9]);
        }
    }

    static void unpack_scales(float d, const uint8_t* s, float* scale) {
        for (int g = 0; g < 8; ++g) {
            scale[2 * g] = d * (0.5f + static_cast<float>(s[g] & 15)) * 0.25f;
            scale[2 * g + 1] = d * (0.5f + static_cast<float>(s[g] >> 4)) * 0.25f;
        }
    }
};

}  // namespace clarion
