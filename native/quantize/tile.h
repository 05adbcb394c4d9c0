// Sixteen groups of a run in lanes, and what all quantizers need besides.
#pragma once

#include <algorithm>
#include <cmath>

#include "quantize/lanes.h"
#include "quantize/quantizer.h"
#include "simd/half.h"

namespace clarion::quantize {

// Element j of every group. Lanes without a group hold zeros of weight 1.
template <int n>
struct Tile {
    F x[n], w[n];

    // `count` groups of n weights, the first one `at` weights after the run's begin.
    [[gnu::noinline]] void load(const Run& run, int64_t at, int count) {
        alignas(64) float tx[n][lanes], tw[n][lanes];
        for (int l = 0; l < lanes; ++l) {
            if (l < count) {
                const float* from = run.x + at + l * n;
                for (int j = 0; j < n; ++j) tx[j][l] = from[j];
            } else {
                for (int j = 0; j < n; ++j) tx[j][l] = 0.0f;
            }
            if (l < count && run.importance != nullptr) {
                const float* from = run.importance + (run.column + at + l * n) % run.cols;
                for (int j = 0; j < n; ++j) tw[j][l] = from[j];
            } else {
                for (int j = 0; j < n; ++j) tw[j][l] = 1.0f;
            }
        }
        std::memcpy(x, tx, sizeof tx);
        std::memcpy(w, tw, sizeof tw);
    }
};

// A scale as the file keeps it, and its exact value. Never infinite: what is too large becomes the largest.
struct Half {
    uint16_t bits;
    float value;
};
inline Half to_half(float x) {
    const uint16_t bits = simd::f32_to_f16(std::clamp(x, -65504.0f, 65504.0f));
    return {bits, simd::f16_to_f32(bits)};
}

// Each lane as its scale in the file would read.
inline F rounded_to_half(F x) {
    alignas(64) float v[lanes];
    store(v, x);
    for (float& e : v) e = to_half(e).value;
    return load(v);
}

inline void put_u16(uint8_t* out, uint32_t v) {
    out[0] = static_cast<uint8_t>(v);
    out[1] = static_cast<uint8_t>(v >> 8);
}

// 1 / x, and 0 where it has no finite value.
CLARION_LANES F inverse(F x) {
    const I usable = abs(x) > all(1e-37f);
    return select(usable, all(1.0f) / select(usable, x, all(1.0f)), all(0.0f));
}

// n bytes of two codes each: the low nibbles columns 0 .. n-1, the high ones n .. 2n-1.
inline void pack_nibbles(const uint8_t* code, int n, uint8_t* out) {
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint8_t>((code[i] & 15) | (code[n + i] & 15) << 4);
}

// A tile's codes, element by element, as each group's bytes: [groups][n].
template <int n>
struct Codes {
    alignas(64) uint8_t of[lanes][n];
    void put(int j, I code) {
        alignas(64) int32_t c[lanes];
        store(c, code);
        for (int l = 0; l < lanes; ++l) of[l][j] = static_cast<uint8_t>(c[l]);
    }
};

}  // namespace clarion::quantize
