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
    static constexpr int32_t offset = 64;
    static constexpr bool has_min = false, wide = true;

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
