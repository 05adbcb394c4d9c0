// IQ3_XXS: 256 weights in 98 bytes.  d: f16 | q: 64 bytes, each the index of 4 columns in a codebook | 8 times
// u32, for 32 columns each: signs and s as in IQ2_XXS.  weight = d * (s + 1/2) / 2 * +-codebook[q]
#pragma once

#include <bit>

#include "formats/grid.h"

namespace clarion {

struct IQ3_XXS {
    static constexpr int id = 18;
    static constexpr const char* name = "IQ3_XXS";
    static constexpr int block = 256, bytes = 98;
    static constexpr int group = 32;
    static constexpr int32_t offset = 64, largest = 126;
    static constexpr bool has_min = false;

    using Entry = uint32_t;
    static constexpr uint8_t shift = 0;
    static constexpr const Entry* grid() { return codebooks.iq3_xxs; }
    static constexpr const Entry* magnitudes() { return codebooks.iq3_xxs_magnitudes; }
    static constexpr simd::PackedCodebook packed() {
        return {codebook_data::iq3_xxs, codebooks.iq3_xxs_levels, 256};
    }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        for (int i = 0; i < 16; ++i)
            store_pairs(to.index + 32 * i, load_quad(panel, at + 2 + 4 * i),
                        []<int>() CLARION_INLINE { return simd::set1(int32_t{0}); });
        const simd::f32x16 d = first_f16(panel, at, 0.5f);
        for (int g = 0; g < 8; ++g)
            put_sevens(load_quad(panel, at + 66 + 4 * g), d, to.flags + 16 * g, to.scale + 16 * g);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const float d = f16_at(block) * 0.5f;
        const uint8_t* q = block + 2;
        for (int g = 0; g < 8; ++g) {
            const uint32_t signs = load_u32(block + 66 + 4 * g);
            scale[g] = d * (0.5f + static_cast<float>(signs >> 28));
            unrolled<4>([&]<int i>() CLARION_INLINE {
                put_signed<offset>(u + 32 * g + 8 * i, two(codebooks.iq3_xxs, q[2 * i], q[2 * i + 1]),
                                   codebooks.even_signs[signs >> 7 * i & 127]);
            });
            q += 8;
        }
    }

    // Eight columns: two entries of a codebook.
    static uint64_t two(const uint32_t* codebook, int first, int second) {
        const uint64_t a = codebook[first], b = codebook[second];
        return std::endian::native == std::endian::little ? a | b << 32 : a << 32 | b;
    }
};

}  // namespace clarion
