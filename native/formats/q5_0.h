// Q5_0: 32 weights in 22 bytes.  d: f16 | h: 4 bytes | q: 16 bytes, low nibbles columns 0-15, high nibbles
// 16-31.  Bit i of h is the fifth bit of column i.  weight = d * (u - 16)
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Q5_0 {
    static constexpr int id = 6;
    static constexpr const char* name = "Q5_0";
    static constexpr int block = 32, bytes = 22;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 16, largest = 31;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        put_fives(panel, at + 2, sink);
    }

    // 32 columns from h and q.
    template <typename Sink>
    [[gnu::always_inline]] static void put_fives(const uint8_t* panel, int64_t at, Sink& sink) {
        sink.begin();
        using Vector = typename Sink::Vector;
        auto h = load_quad<Vector>(panel, at);
        Vector q[4];
        load_quads(panel, at + 4, q);
        const simd::u8x64 nibble = simd::set1_u8(15);
        unrolled<4>([&]<int step>() CLARION_INLINE {
            constexpr int i = step % 2 * 2;
            Vector w0, w1;
            if constexpr (step < 2) {
                w0 = simd::bit_and(q[i], nibble);
                w1 = simd::bit_and(q[i + 1], nibble);
            } else {
                w0 = simd::shift_right_u8<4>(q[i]);
                w1 = simd::shift_right_u8<4>(q[i + 1]);
            }
            simd::change_flagged(w0, w1, h, 0, 16);
            h = simd::shift_right<8>(h);
            sink.template put2<2 * step>(w0, w1);
        });
        sink.finish();
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        *scale = f16_at(block);
        unpack_fives(block + 2, u);
    }

    // 32 columns from h and q.
    static void unpack_fives(const uint8_t* h, uint8_t* u) {
        unpack_nibbles<16>(h + 4, u);
        for (int i = 0; i < 4; ++i) {
            uint64_t v;
            std::memcpy(&v, u + 8 * i, 8);
            v |= codebooks.bits[h[i]] & every_byte << 4;
            std::memcpy(u + 8 * i, &v, 8);
        }
    }
};

}  // namespace clarion
