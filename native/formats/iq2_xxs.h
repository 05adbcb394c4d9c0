// IQ2_XXS: 256 weights in 66 bytes.  d: f16 | for each 32 columns: 4 bytes, each the index of 8 columns in a
// codebook | u32: four times 7 bits of signs, the eighth making their number even, then 4 bits s.
// weight = d * (s + 1/2) / 4 * +-codebook[index]
#pragma once

#include "formats/grid.h"

namespace clarion {

struct IQ2_XXS {
    static constexpr int id = 16;
    static constexpr const char* name = "IQ2_XXS";
    static constexpr int block = 256, bytes = 66;
    static constexpr int group = 32;
    static constexpr int32_t offset = 64, largest = 107;
    static constexpr bool has_min = false;

    using Entry = uint64_t;
    static constexpr uint8_t shift = 0;
    static constexpr const Entry* grid() { return codebooks.iq2_xxs; }
    static constexpr const Entry* magnitudes() { return codebooks.iq2_xxs_magnitudes; }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        const simd::f32x16 d = first_f16(panel, at, 0.25f);
        for (int g = 0; g < 8; ++g) {
            store_indices(to.index + 32 * g, load_quad(panel, at + 2 + 8 * g));
            put_sevens(load_quad(panel, at + 6 + 8 * g), d, to.flags + 16 * g, to.scale + 16 * g);
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const float d = f16_at(block) * 0.25f;
        const uint8_t* q = block + 2;
        for (int g = 0; g < 8; ++g, q += 8) {
            const uint32_t signs = load_u32(q + 4);
            scale[g] = d * (0.5f + static_cast<float>(signs >> 28));
            unrolled<4>([&]<int i>() CLARION_INLINE {
                put_signed<offset>(u + 32 * g + 8 * i, codebooks.iq2_xxs[q[i]],
                                   codebooks.even_signs[signs >> 7 * i & 127]);
            });
        }
    }
};

}  // namespace clarion
