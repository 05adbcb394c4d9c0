// The formats of four-bit floats (e2m1) with a scale that is a float of few bits: MXFP4, a power of two for each 32
// weights, and NVFP4, an unsigned e4m3 for each 16. A scale has few neighbours, so they are simply tried.
#include <bit>

#include "formats/codebooks.h"
#include "quantize/quantizers.h"
#include "quantize/scale_fit.h"

namespace clarion::quantize {

namespace {

// 0, 1/2, 1, 3/2, 2, 3, 4, 6, and the same with a sign.
struct E2m1 {
    static constexpr float level[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    static constexpr float border(int i) { return 0.5f * (level[i - 1] + level[i]); }

    CLARION_LANES static F nearest(F v) {
        const F magnitude = abs(v);
        F r = all(0.0f);
#pragma GCC unroll 8
        for (int i = 1; i < 8; ++i) r = select(magnitude > all(border(i)), all(level[i]), r);
        return select(v < all(0.0f), all(0.0f) - r, r);
    }
    static I code(F v) {
        const F magnitude = abs(v);
        I code = (v < all(-border(1))) & all(8);
        for (int i = 1; i < 8; ++i)
            code = code - (magnitude > all(border(i)));  // a comparison that holds is -1
        return code;
    }
};

// For each group the scale with the least error among value(first + k), k = 0 .. count-1, and its number,
// where first(end) is that of a scale for weights up to `end`: the largest weight of the group, and with
// importance also the one that counts most.
template <int n, typename First, typename Value>
void best_of(const Tile<n>& tile, bool weighted, First first, int count, Value value, float (&scale)[lanes],
             int (&number)[lanes]) {
    F least = all(3e38f);
    for (int round = 0; round < 1 + weighted; ++round) {
        alignas(64) float end[lanes];
        int start[lanes];
        store(end, abs(round == 0 ? extreme(tile.x) : heaviest(tile)));
        for (int l = 0; l < lanes; ++l) start[l] = first(end[l]);
        for (int k = 0; k < count; ++k) {
            alignas(64) float trial[lanes], error[lanes], before[lanes];
            for (int l = 0; l < lanes; ++l) trial[l] = value(start[l] + k);
            const F found = scale_error<E2m1>(tile, load(trial));
            store(error, found);
            store(before, least);
            for (int l = 0; l < lanes; ++l)
                if (error[l] < before[l]) {
                    scale[l] = trial[l];
                    number[l] = start[l] + k;
                }
            least = min(found, least);
        }
    }
}

// The exponent is kept with a bias of 127, as that of a float. None is so small that its inverse overflows.
float power_of_two(int e) { return std::bit_cast<float>(static_cast<uint32_t>(std::clamp(e, 5, 254)) << 23); }

}  // namespace

void quantize_mxfp4(const Run& run) {
    Tile<32> tile;
    for (int64_t first = 0; first < run.n_blocks; first += lanes) {
        const int count = static_cast<int>(std::min<int64_t>(lanes, run.n_blocks - first));
        tile.load(run, 32 * first, count);
        int e[lanes] = {};
        alignas(64) float scale[lanes] = {};
        const auto first_of = [](float end) {  // 4 to 8 times the scale in the middle
            return static_cast<int>(std::bit_cast<uint32_t>(end) >> 23) - 3;
        };
        best_of(tile, run.importance != nullptr, first_of, 3, power_of_two, scale, e);
        Codes<32> codes;
        const F to_level = inverse(load(scale));
        codes.fill([&](int j) { return E2m1::code(tile.x[j] * to_level); });
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + 17 * (first + b);
            out[0] = static_cast<uint8_t>(std::clamp(e[b], 5, 254));
            pack_nibbles(codes.of[b], 16, out + 1);
        }
    }
}

void quantize_nvfp4(const Run& run) {
    static constexpr int last = 0x7e;  // 448; the next code is no number
    const auto e4m3 = [](int code) { return 2 * codebooks.half_e4m3[std::clamp<int>(code, 0, last)]; };
    Tile<16> tile;
    for (int64_t first = 0; first < run.n_blocks; first += lanes / 4) {
        const int count = static_cast<int>(std::min<int64_t>(lanes / 4, run.n_blocks - first));
        tile.load(run, 64 * first, 4 * count);
        int code[lanes] = {};
        alignas(64) float scale[lanes] = {};
        const auto first_of = [](float end) {
            const float* at =
                std::lower_bound(codebooks.half_e4m3, codebooks.half_e4m3 + last, 0.5f * (end / 6));
            return static_cast<int>(at - codebooks.half_e4m3) - 2;
        };
        best_of(tile, run.importance != nullptr, first_of, 8, e4m3, scale, code);
        Codes<16> codes;
        const F to_level = inverse(load(scale));
        codes.fill([&](int j) { return E2m1::code(tile.x[j] * to_level); });
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + 36 * (first + b);
            for (int g = 0; g < 4; ++g) {
                out[g] = static_cast<uint8_t>(std::clamp(code[4 * b + g], 0, last));
                pack_nibbles(codes.of[4 * b + g], 8, out + 4 + 8 * g);
            }
        }
    }
}

}  // namespace clarion::quantize
