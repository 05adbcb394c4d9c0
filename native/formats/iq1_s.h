// IQ1_S: 256 weights in 50 bytes.  d: f16 | q: 32 bytes | h: 8 times u16.  Each 8 columns are an entry of a
// codebook of -1, 0 and 1; its index is a byte of q and three bits of h. Each 32 columns share an h: four
// times three such bits, three bits s and the sign of a shift.
// weight = d * (2 s + 1) * (codebook[index] +- 1/8), here in eighths
#pragma once

#include "formats/grid.h"

namespace clarion {

struct IQ1_S {
    static constexpr int id = 19;
    static constexpr const char* name = "IQ1_S";
    static constexpr int block = 256, bytes = 50;
    static constexpr int group = 32;
    static constexpr int32_t offset = 9, largest = 18;
    static constexpr bool has_min = false;

    using Entry = uint64_t;
    static constexpr uint8_t shift = 0xfe;  // a flag takes two eighths away
    static constexpr const Entry* grid() { return codebooks.iq1; }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        const simd::f32x16 d = first_f16(panel, at, 0.125f);
        for (int g = 0; g < 8; ++g) {
            simd::i32x16 h = load_quad(panel, at + 34 + 4 * (g / 2));
            if (g % 2 != 0) h = simd::shift_right<16>(h);
            put_32(load_quad(panel, at + 2 + 4 * g), h, d, g, to);
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const float d = f16_at(block) * 0.125f;
        const uint8_t* q = block + 2;
        for (int g = 0; g < 8; ++g) {
            const int h = load_u16(block + 34 + 2 * g);
            scale[g] = d * static_cast<float>(2 * (h >> 12 & 7) + 1);
            unrolled<4>([&]<int i>() CLARION_INLINE {
                put(q[4 * g + i] | (h >> 3 * i & 7) << 8, h >> 15, u + 32 * g + 8 * i);
            });
        }
    }

    // Eight columns of the codebook, shifted by an eighth up or down.
    static void put(int index, int down, uint8_t* u) {
        const uint64_t v = codebooks.iq1[index] - (down != 0 ? 2 * every_byte : 0);
        std::memcpy(u, &v, 8);
    }

  private:
    static void put_32(simd::i32x16 q, simd::i32x16 h, simd::f32x16 d, int g, const Codes& to) {
        store_indices<3, 7>(to.index + 32 * g, q, h);
        simd::store(to.flags + 16 * g, simd::shift_right_signed<31>(simd::shift_left<16>(h)));
        const simd::i32x16 odd = simd::bit_or(shifted_bits<-11>(h, 14), simd::set1(int32_t{1}));
        simd::store(to.scale + 16 * g, simd::mul(d, simd::to_f32(odd)));
    }
};

}  // namespace clarion
