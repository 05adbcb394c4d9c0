// What the formats with blocks of 256 weights share: sums over a block's groups, and the places of bits.
#pragma once

#include "quantize/tile.h"

namespace clarion::quantize {

// Each lane: the sum over the lanes of its block, which has `groups` of them, in a fixed order.
template <int groups>
[[gnu::noinline]] F sum_of_blocks(F a) {
    alignas(64) float v[lanes];
    store(v, a);
    for (int b = 0; b < lanes; b += groups) {
        float sum = 0.0f;
        for (int g = 0; g < groups; ++g) sum += v[b + g];
        std::fill_n(v + b, groups, sum);
    }
    return load(v);
}

// The low two bits of 256 codes: of each 32 bytes, the lowest bits are 32 columns, the next two the next 32.
inline void pack_pairs(const uint8_t* code, uint8_t* out) {
    for (int half = 0; half < 2; ++half, code += 128)
        for (int i = 0; i < 32; ++i)
            out[32 * half + i] = static_cast<uint8_t>((code[i] & 3) | (code[32 + i] & 3) << 2 |
                                                      (code[64 + i] & 3) << 4 | (code[96 + i] & 3) << 6);
}

}  // namespace clarion::quantize
