// IQ2_XS: 256 weights in 74 bytes.  d: f16 | 32 times u16, for 8 columns each: 9 bits their index in a
// codebook, 7 bits of signs as in IQ2_XXS | s: 8 bytes, a nibble for each 16 columns.
// weight = d * (s + 1/2) / 4 * +-codebook[index]
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct IQ2_XS {
    static constexpr int id = 17;
    static constexpr const char* name = "IQ2_XS";
    static constexpr int block = 256, bytes = 74;
    static constexpr int group = 16;
    static constexpr int32_t offset = 64;
    static constexpr bool has_min = false, wide = true;

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
