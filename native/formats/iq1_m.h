// IQ1_M: 256 weights in 56 bytes.  q: 32 bytes | h: 16 bytes | s: 4 times u16.  As IQ1_S, but each 8 columns
// have a nibble of h, three bits of their index and the sign of their shift; each 16 columns a scale of three
// bits in s. The upper four bits of s[0..3], lowest first, are d: f16.
#pragma once

#include "formats/iq1_s.h"

namespace clarion {

struct IQ1_M {
    static constexpr int id = 29;
    static constexpr const char* name = "IQ1_M";
    static constexpr int block = 256, bytes = 56;
    static constexpr int group = 16;
    static constexpr int32_t offset = 9, largest = 18;
    static constexpr bool has_min = false;

    using Entry = uint64_t;
    static constexpr uint8_t shift = IQ1_S::shift;
    static constexpr const Entry* grid() { return codebooks.iq1; }

    static void codes(const uint8_t* panel, int64_t at, const Codes& to) {
        for (int g = 0; g < 8; ++g) {
            simd::i32x16 nibbles = load_quad(panel, at + 32 + 4 * (g / 2));
            if (g % 2 != 0) nibbles = simd::shift_right<16>(nibbles);
            store_indices<4, 7>(to.index + 32 * g, load_quad(panel, at + 4 * g), nibbles);
            // Bit 3 of nibble i to all bits of byte i.
            const simd::i32x16 pairs =
                simd::bit_or(shifted_bits<0>(nibbles, 0x88), shifted_bits<8>(nibbles, 0x880000));
            const simd::i32x16 set =
                shifted_bits<-3>(simd::bit_or(pairs, simd::shift_left<4>(pairs)), 0x01010101);
            simd::store(to.flags + 16 * g, simd::sub(simd::shift_left<8>(set), set));
        }
        const simd::i32x16 s01 = load_quad(panel, at + 48), s23 = load_quad(panel, at + 52);
        const simd::i32x16 half =
            simd::bit_or(simd::bit_or(shifted_bits<-12>(s01, 0xf), shifted_bits<-24>(s01, 0xf0)),
                         simd::bit_or(shifted_bits<-4>(s23, 0xf00), shifted_bits<-16>(s23, 0xf000)));
        const simd::f32x16 d = simd::mul(simd::f16_low(simd::as_u8(half)), simd::set1(0.125f));
        for (int i = 0; i < 4; ++i) {
            simd::i32x16 bits = i < 2 ? s01 : s23;
            if (i % 2 != 0) bits = simd::shift_right<16>(bits);
            for (int g = 4 * i; g < 4 * i + 4; ++g) {
                const simd::i32x16 odd = simd::bit_or(shifted_bits<1>(bits, 14), simd::set1(int32_t{1}));
                simd::store(to.scale + 16 * g, simd::mul(d, simd::to_f32(odd)));
                bits = simd::shift_right<3>(bits);
            }
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        const uint8_t *h = block + 32, *s = block + 48;
        uint16_t half = 0;
        for (int i = 0; i < 4; ++i) half |= static_cast<uint16_t>(load_u16(s + 2 * i) >> 12 << 4 * i);
        const float d = simd::f16_to_f32(half) * 0.125f;
        for (int g = 0; g < 16; ++g) {
            const int bits = load_u16(s + g / 4 * 2) >> 3 * (g % 4) & 7;
            scale[g] = d * static_cast<float>(2 * bits + 1);
            for (int i = 0; i < 2; ++i) {
                const int nibble = h[g] >> 4 * i;
                IQ1_S::put(block[2 * g + i] | (nibble & 7) << 8, nibble & 8, u + 16 * g + 8 * i);
            }
        }
    }
};

}  // namespace clarion
