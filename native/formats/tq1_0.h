// TQ1_0: 256 ternary weights in 54 bytes.  q: 48 bytes, five weights each | h: 4 bytes, four each | d: f16.
// A byte is a fraction of 256: times 3, its integer part is the first digit and the rest holds the others.
// Digit n of the first 32 bytes are columns 32 n .., of the next 16 columns 160 + 16 n .., of h 240 + 4 n ..
// weight = d * (digit - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct TQ1_0 {
    static constexpr int id = 34;
    static constexpr const char* name = "TQ1_0";
    static constexpr int block = 256, bytes = 54;
    static constexpr int group = 32;
    static constexpr int32_t offset = 1;
    static constexpr bool has_min = false, wide = false;

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<8>(f16_at(block + 52), scale);
        digits<32, 5>(block, u);
        digits<16, 5>(block + 32, u + 160);
        digits<4, 4>(block + 48, u + 240);
    }

  private:
    template <int n, int each>
    static void digits(const uint8_t* __restrict q, uint8_t* __restrict u) {
        uint8_t rest[n];
        std::memcpy(rest, q, n);
        for (int digit = 0; digit < each; ++digit, u += n)
            for (int i = 0; i < n; ++i) {
                const auto product = static_cast<uint16_t>(rest[i] * 3);
                u[i] = static_cast<uint8_t>(product >> 8);
                rest[i] = static_cast<uint8_t>(product);
            }
    }
};

}  // namespace clarion
