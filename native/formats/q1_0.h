// Q1_0: 128 weights in 18 bytes.  d: f16 | 16 bytes, a bit for each column, lowest first.
// weight = bit ? d : -d
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"

namespace clarion {

struct Q1_0 {
    static constexpr int id = 41;
    static constexpr const char* name = "Q1_0";
    static constexpr int block = 128, bytes = 18;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 1, largest = 2;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16<4>(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        for (int g = 0; g < 4; ++g) {
            sink.begin();
            auto bits = load_quad<typename Sink::Vector>(panel, at + 2 + 4 * g);
            unrolled<4>([&]<int step>() CLARION_INLINE {
                typename Sink::Vector w0{}, w1{};
                simd::change_flagged(w0, w1, bits, 0, 2);
                bits = simd::shift_right<8>(bits);
                sink.template put2<2 * step>(w0, w1);
            });
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<4>(f16_at(block), scale);
        for (int i = 0; i < 16; ++i) {
            const uint64_t v = codebooks.bits[block[2 + i]] & every_byte << 1;
            std::memcpy(u + 8 * i, &v, 8);
        }
    }
};

}  // namespace clarion
