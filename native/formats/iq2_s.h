// IQ2_S: 256 weights in 82 bytes.  d: f16 | q: 32 bytes | signs: 32 bytes | h: 8 bytes | s: 8 bytes as in
// IQ2_XS.  Each 8 columns have a byte of q and two bits of h, together their index in a codebook, and a byte
// of signs.  weight = d * (s + 1/2) / 4 * +-codebook[index]
#pragma once

#include "formats/iq2_xs.h"

namespace clarion {

struct IQ2_S {
    static constexpr int id = 22;
    static constexpr const char* name = "IQ2_S";
    static constexpr int block = 256, bytes = 82;
    static constexpr int group = 16;
    static constexpr int32_t offset = 64, largest = 107;
    static constexpr bool has_min = false;

    using Entry = uint64_t;
    static constexpr uint8_t shift = 0;
    static constexpr const Entry* grid() { return codebooks.iq2_s; }
    static constexpr const Entry* magnitudes() { return codebooks.iq2_s_magnitudes; }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        simd::i32x16 h{};
        for (int g = 0; g < 8; ++g) {
            h = g % 4 == 0 ? load_quad(panel, at + 66 + g) : simd::shift_right<8>(h);
            store_indices<2, 3>(to.index + 32 * g, load_quad(panel, at + 2 + 4 * g), h);
            simd::store(to.flags + 16 * g, load_quad(panel, at + 34 + 4 * g));
        }
        const simd::f32x16 d = first_f16(panel, at, 0.25f);
        put_nibble_scales(load_quad(panel, at + 74), d, to.scale);
        put_nibble_scales(load_quad(panel, at + 78), d, to.scale + 128);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        IQ2_XS::unpack_scales(f16_at(block), block + 74, scale);
        const uint8_t *q = block + 2, *signs = block + 34, *h = block + 66;
        for (int g = 0; g < 8; ++g, q += 4, signs += 4, u += 32)
            unrolled<4>([&]<int i>() CLARION_INLINE {
                put_signed<offset>(u + 8 * i, codebooks.iq2_s[q[i] | (h[g] << (8 - 2 * i) & 0x300)],
                                   codebooks.bits[signs[i]]);
            });
    }
};

}  // namespace clarion
