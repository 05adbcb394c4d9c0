// Q2_0: 64 weights in 18 bytes.  d: f16 | q: 16 bytes, two bits for each column, lowest first.
// weight = d * (q - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct Q2_0 {
    static constexpr int id = 42;
    static constexpr const char* name = "Q2_0";
    static constexpr int block = 64, bytes = 18;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 1, largest = 3;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16<2>(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int half = 0; half < 2; ++half) {
            sink.begin();
            unrolled<2>([&]<int c>() CLARION_INLINE {
                const auto q = load_quad<typename Sink::Vector>(panel, at + 2 + 8 * half + 4 * c);
                sink.template put2<4 * c>(four(byte_of<0>(q)), four(byte_of<1>(q)));
                sink.template put2<4 * c + 2>(four(byte_of<2>(q)), four(byte_of<3>(q)));
            });
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<2>(f16_at(block), scale);
        for (int i = 0; i < 16; ++i) {
            for (int j = 0; j < 4; ++j) u[4 * i + j] = block[2 + i] >> 2 * j & 3;
        }
    }

  private:
    // The pairs of bits of a byte to four bytes.
    template <typename Vector>
    static auto four(Vector byte) {
        const Vector two = simd::bit_or(byte, simd::shift_left<12>(byte));
        return simd::bit_and(simd::as_u8(simd::bit_or(two, simd::shift_left<6>(two))), simd::set1_u8(3));
    }
};

}  // namespace clarion
