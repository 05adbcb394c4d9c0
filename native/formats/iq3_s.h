// IQ3_S: 256 weights in 110 bytes.  d: f16 | q: 64 bytes | h: 8 bytes | signs: 32 bytes | s: 4 bytes, a nibble
// for each 32 columns.  Each 4 columns have a byte of q and a bit of h, together their index in a codebook;
// each 8 a byte of signs.  weight = d * (2 s + 1) * +-codebook[index]
#pragma once

#include "formats/iq3_xxs.h"

namespace clarion {

struct IQ3_S {
    static constexpr int id = 21;
    static constexpr const char* name = "IQ3_S";
    static constexpr int block = 256, bytes = 110;
    static constexpr int group = 32;
    static constexpr int32_t offset = 16, largest = 31;
    static constexpr bool has_min = false;

    using Entry = uint32_t;
    static constexpr uint8_t shift = 0;
    static constexpr const Entry* grid() { return codebooks.iq3_s; }
    static constexpr const Entry* magnitudes() { return codebooks.iq3_s_magnitudes; }
    static constexpr simd::PackedCodebook packed() {
        return {codebook_data::iq3_s, codebooks.iq3_s_levels, 512};
    }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        for (int g = 0; g < 8; ++g) simd::store(to.flags + 16 * g, load_quad(panel, at + 74 + 4 * g));
        simd::i32x16 h = load_quad(panel, at + 66);
        for (int i = 0; i < 16; ++i) {
            store_pairs(to.index + 32 * i, load_quad(panel, at + 2 + 4 * i), [&]<int j>() CLARION_INLINE {
                return simd::bit_or(shifted_bits<8 - 2 * j>(h, 0x100),
                                    shifted_bits<23 - 2 * j>(h, 0x1000000));
            });
            h = i == 7 ? load_quad(panel, at + 70) : simd::shift_right<4>(h);
        }
        const simd::f32x16 d = first_f16(panel, at, 1.0f);
        const simd::i32x16 one = simd::set1(int32_t{1});
        simd::i32x16 s = load_quad(panel, at + 106);
        for (int g = 0; g < 8; ++g) {
            const simd::i32x16 odd = simd::bit_or(shifted_bits<1>(s, 30), one);
            simd::store(to.scale + 16 * g, simd::mul(d, simd::to_f32(odd)));
            s = simd::shift_right<4>(s);
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const float d = f16_at(block);
        const uint8_t *q = block + 2, *h = block + 66, *signs = block + 74, *s = block + 106;
        for (int g = 0; g < 8; ++g) {
            scale[g] = d * static_cast<float>(2 * (s[g / 2] >> 4 * (g % 2) & 15) + 1);
            unrolled<4>([&]<int i>() CLARION_INLINE {
                const int first = q[2 * i] | (h[g] << (8 - 2 * i) & 0x100);
                const int second = q[2 * i + 1] | (h[g] << (7 - 2 * i) & 0x100);
                put_signed<offset>(u + 8 * i, IQ3_XXS::two(codebooks.iq3_s, first, second),
                                   codebooks.bits[signs[i]]);
            });
            q += 8, signs += 4, u += 32;
        }
    }
};

}  // namespace clarion
