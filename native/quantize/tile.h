// Sixteen groups of a run in lanes, and what all quantizers need besides.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>

#include "quantize/lanes.h"
#include "quantize/quantizer.h"
#include "simd/half.h"

namespace clarion::quantize {

typedef float Four __attribute__((vector_size(16)));

// Element j of all sixteen groups to out[j]. Four groups' four elements at a time: in rows, then in columns.
template <int n>
CLARION_LANES void transpose(const float* const (&group)[lanes], F (&out)[n]) {
    static_assert(n % 4 == 0);
    for (int j = 0; j < n; j += 4) {
        for (int l = 0; l < lanes; l += 4) {
            Four row[4], column[4];
            for (int k = 0; k < 4; ++k) std::memcpy(&row[k], group[l + k] + j, sizeof row[k]);
            const Four low_even = __builtin_shufflevector(row[0], row[2], 0, 4, 1, 5);
            const Four low_odd = __builtin_shufflevector(row[1], row[3], 0, 4, 1, 5);
            const Four high_even = __builtin_shufflevector(row[0], row[2], 2, 6, 3, 7);
            const Four high_odd = __builtin_shufflevector(row[1], row[3], 2, 6, 3, 7);
            column[0] = __builtin_shufflevector(low_even, low_odd, 0, 4, 1, 5);
            column[1] = __builtin_shufflevector(low_even, low_odd, 2, 6, 3, 7);
            column[2] = __builtin_shufflevector(high_even, high_odd, 0, 4, 1, 5);
            column[3] = __builtin_shufflevector(high_even, high_odd, 2, 6, 3, 7);
            for (int k = 0; k < 4; ++k)
                std::memcpy(reinterpret_cast<char*>(&out[j + k]) + 4 * l, &column[k], sizeof column[k]);
        }
    }
}

// Element j of every group. Lanes without a group hold zeros of weight 1.
//
// A group's weights are its importances divided by the largest of them, which is its mass: so much does the
// group count in its block. Where none counts, the weights are 1 and the mass is 0: the group is fitted as if
// all counted alike, and asks nothing of the scales that it shares.
template <int n>
struct Tile {
    F x[n], w[n];
    F mass = all(1.0f);

    // `count` groups of n weights, the first one `at` weights after the run's begin.
    [[gnu::noinline]] void load(const Run& run, int64_t at, int count) {
        float none[n] = {};
        const float* group[lanes];
        for (int l = 0; l < lanes; ++l) group[l] = l < count ? run.x + at + l * n : none;
        transpose(group, x);
        if (run.importance == nullptr) {
            for (F& weights : w) weights = all(1.0f);
            return;
        }
        std::fill_n(none, n, 1.0f);
        for (int l = 0; l < count; ++l) group[l] = run.importance + (run.column + at + l * n) % run.cols;
        transpose(group, w);
        mass = w[0];
        for (int j = 1; j < n; ++j) mass = max(mass, w[j]);
        const I counts = mass > all(0.0f);
        const F divisor = select(counts, mass, all(1.0f));
        for (F& weights : w) weights = select(counts, weights / divisor, all(1.0f));
    }
    // The same groups, all of whose weights count alike.
    [[gnu::noinline]] Tile alike() const {
        Tile same = *this;
        for (F& weights : same.w) weights = all(1.0f);
        same.mass = all(1.0f);
        return same;
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

// Each lane as its scale in the file would read: the value of to_half().
[[gnu::noinline]] inline F rounded_to_half(F x) {
    const F size = min(abs(x), all(65504.0f));
    const I bits = bits_of(size), odd = shifted_right(bits, 13) & all(1);
    const F normal = of_bits((bits + all(0xfff) + odd) & all(~0x1fff));
    // Beside 1/2 a float's last bit is that of a half below 2^-14.
    const F small = (size + all(0.5f)) - all(0.5f);
    return of_bits(bits_of(select(size < all(0x1p-14f), small, normal)) | (bits_of(x) & all(INT32_MIN)));
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

// Of several ways to write the same groups the one with the least error, each lane by itself: error(way) is
// that of what is written, its scales rounded as in the file. The first of equals stays.
template <typename Way, typename Error>
struct Best {
    Error error;
    Way way;
    F least;
    Best(const Way& first, Error judge) : error(judge), way(first), least(error(first)) {}

    [[gnu::noinline]] void attempt(const Way& other) {
        const F found = error(other);
        const I better = found < least;
        way = select(better, other, way);
        least = select(better, found, least);
    }
};

// n bytes of two codes each: the low nibbles columns 0 .. n-1, the high ones n .. 2n-1.
inline void pack_nibbles(const uint8_t* code, int n, uint8_t* out) {
    for (int i = 0; i < n; ++i) out[i] = static_cast<uint8_t>((code[i] & 15) | (code[n + i] & 15) << 4);
}

// A tile's codes as each group's bytes: [groups][n].
template <int n>
struct Codes {
    alignas(64) uint8_t of[lanes][n];

    // code(j) is that of element j of every group, 0 to 255. Four of them go to memory as one number.
    template <typename Code>
    CLARION_LANES void fill(Code code) {
        constexpr bool little = std::endian::native == std::endian::little;
        for (int j = 0; j < n; j += 4) {
            I four = all(0);
            for (int k = 0; k < 4; ++k) four = four | shifted_left(code(j + k), 8 * (little ? k : 3 - k));
            alignas(64) int32_t bytes[lanes];
            store(bytes, four);
            for (int l = 0; l < lanes; ++l) std::memcpy(&of[l][j], &bytes[l], sizeof bytes[l]);
        }
    }
};

}  // namespace clarion::quantize
