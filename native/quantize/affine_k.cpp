// The formats whose blocks of 256 weights have two scales d and dmin: f16, and for each group two small integers
// s and m: weight = d * s * code - dmin * m. Q2_K has 16 groups of 16, Q4_K and Q5_K have 8 of 32.
#include "quantize/affine_fit.h"
#include "quantize/block_256.h"
#include "quantize/common_scale.h"
#include "quantize/quantizers.h"

namespace clarion::quantize {

namespace {

struct Q2K {
    static constexpr int n = 16, bytes = 84, steps = 16;
    static constexpr float most = 3, most_integer = 15;

    static void pack(const uint8_t* code, const int* s, const int* m, Half d, Half dmin, uint8_t* out) {
        for (int g = 0; g < 16; ++g) out[g] = static_cast<uint8_t>(s[g] | m[g] << 4);
        pack_pairs(code, out + 16);
        put_u16(out + 80, d.bits);
        put_u16(out + 82, dmin.bits);
    }
};

// d, dmin, and eight s and m of six bits: see formats/k_scales.h.
void pack_scales(const int* s, const int* m, Half d, Half dmin, uint8_t* out) {
    put_u16(out, d.bits);
    put_u16(out + 2, dmin.bits);
    for (int g = 0; g < 4; ++g) {
        out[4 + g] = static_cast<uint8_t>(s[g] | s[4 + g] >> 4 << 6);
        out[8 + g] = static_cast<uint8_t>(m[g] | m[4 + g] >> 4 << 6);
        out[12 + g] = static_cast<uint8_t>((s[4 + g] & 15) | (m[4 + g] & 15) << 4);
    }
}

struct Q4K {
    static constexpr int n = 32, bytes = 144, steps = 12;
    static constexpr float most = 15, most_integer = 63;

    static void pack(const uint8_t* code, const int* s, const int* m, Half d, Half dmin, uint8_t* out) {
        pack_scales(s, m, d, dmin, out);
        for (int pair = 0; pair < 4; ++pair) pack_nibbles(code + 64 * pair, 32, out + 16 + 32 * pair);
    }
};

struct Q5K {
    static constexpr int n = 32, bytes = 176, steps = 10;
    static constexpr float most = 31, most_integer = 63;

    static void pack(const uint8_t* code, const int* s, const int* m, Half d, Half dmin, uint8_t* out) {
        pack_scales(s, m, d, dmin, out);
        std::memset(out + 16, 0, 32);
        for (int i = 0; i < 256; ++i) out[16 + i % 32] |= static_cast<uint8_t>(code[i] >> 4 << i / 32);
        for (int pair = 0; pair < 4; ++pair) pack_nibbles(code + 64 * pair, 32, out + 48 + 32 * pair);
    }
};

// sum(w (x - scale * code - low)^2), each weight at its nearest code.
template <typename Format>
[[gnu::noinline]] F error_of(const Tile<Format::n>& tile, F scale, F low) {
    const F to_code = inverse(scale), shift = low * to_code;
    F error = all(0.0f);
    CLARION_UNROLL
    for (int j = 0; j < Format::n; ++j) {
        const F q = rounded(clamp(tile.x[j] * to_code - shift, all(0.0f), all(Format::most)));
        error = error + tile.w[j] * square(tile.x[j] - low - scale * q);
    }
    return error;
}

// A block's integers in the lanes of its groups, with its two scales in each.
struct Choice {
    F d, dmin, s, m;
};

// Neighbouring integers that lower the groups' errors: s with the m that suits it, then m alone.
template <typename Format>
void improve_integers(const Tile<Format::n>& tile, Choice& at) {
    const F most = all(Format::most_integer), none = all(0.0f);
    F least = error_of<Format>(tile, at.d * at.s, none - at.dmin * at.m);
    const auto attempt = [&](F s, F m) {
        s = clamp(s, none, most);
        m = clamp(m, none, most);
        const F error = error_of<Format>(tile, at.d * s, none - at.dmin * m);
        const I better = error < least;
        at.s = select(better, s, at.s);
        at.m = select(better, m, at.m);
        least = select(better, error, least);
    };
    const F s = at.s, m = at.m;
    for (const float ds : {-1.0f, 0.0f, 1.0f})
        for (const float dm : {-1.0f, 0.0f, 1.0f})
            if (ds != 0.0f || dm != 0.0f) attempt(s + all(ds), m + all(dm));
}

// Both scales of each block from weighted least squares, given its integers and the codes nearest to them.
template <typename Format>
void refit_scales(const Tile<Format::n>& tile, Choice& at) {
    constexpr int groups = 256 / Format::n;
    const Moments v = moments(tile, inverse(at.d * at.s), all(0.0f) - at.dmin * at.m, Format::most);
    // Minimise sum(w (x - d (s q) + dmin m)^2).
    const F aa = sum_of_blocks<groups>(v.qq * at.s * at.s), ab = sum_of_blocks<groups>(v.q * at.s * at.m);
    const F bb = sum_of_blocks<groups>(v.w * at.m * at.m);
    const F xa = sum_of_blocks<groups>(v.xq * at.s), xb = sum_of_blocks<groups>(v.x * at.m);
    const F det = aa * bb - ab * ab;
    const I solvable = det > all(1e-6f) * aa * bb;
    const F d = select(solvable, ratio(bb * xa - ab * xb, det), ratio(xa, aa));
    const F dmin = select(solvable, ratio(ab * xa - aa * xb, det), at.dmin);
    at.d = rounded_to_half(max(d, all(0.0f)));
    at.dmin = rounded_to_half(max(dmin, all(0.0f)));
}

template <typename Format>
void quantize(const Run& run) {
    constexpr int n = Format::n, groups = 256 / n, blocks = lanes / groups;
    Tile<n> tile;
    for (int64_t first = 0; first < run.n_blocks; first += blocks) {
        const int count = static_cast<int>(std::min<int64_t>(blocks, run.n_blocks - first));
        tile.load(run, 256 * first, groups * count);

        const AffineFit fit = fit_affine<n, true>(tile, Format::most, Format::steps, 2);
        const Moments v = moments(tile, inverse(fit.scale), fit.low, Format::most);
        alignas(64) float scale[lanes], cost[lanes], low[lanes], weight[lanes], d[lanes], dmin[lanes];
        store(scale, fit.scale);
        store(cost, v.qq - ratio(v.q * v.q, v.w));  // of a deviation, once low has been fitted again
        store(low, all(0.0f) - fit.low);
        store(weight, v.w);
        for (int b = 0; b < blocks; ++b) {
            const int at = groups * b;
            const auto common = [&](const float* s, const float* h) {
                return to_half(common_scale(s + at, h + at, groups, 0.0f, Format::most_integer, 0.0f)).value;
            };
            std::fill_n(d + at, groups, common(scale, cost));
            std::fill_n(dmin + at, groups, common(low, weight));
        }
        Choice choice{load(d), load(dmin), all(0.0f), all(0.0f)};
        const auto integer = [](F v) { return rounded(clamp(v, all(0.0f), all(Format::most_integer))); };
        choice.s = integer(fit.scale * inverse(choice.d));
        choice.m = integer((all(0.0f) - fit.low) * inverse(choice.dmin));
        for (int round = 0; round < 2; ++round) {
            improve_integers<Format>(tile, choice);
            refit_scales<Format>(tile, choice);
        }
        improve_integers<Format>(tile, choice);

        Codes<n> codes;
        const F to_code = inverse(choice.d * choice.s),
                shift = (all(0.0f) - choice.dmin * choice.m) * to_code;
        codes.fill([&](int j) {
            return truncated(rounded(clamp(tile.x[j] * to_code - shift, all(0.0f), all(Format::most))));
        });
        alignas(64) int32_t s[lanes], m[lanes];
        store(s, truncated(choice.s));
        store(m, truncated(choice.m));
        store(d, choice.d);
        store(dmin, choice.dmin);
        for (int b = 0; b < count; ++b) {
            const int at = groups * b;
            Format::pack(codes.of[at], s + at, m + at, to_half(d[at]), to_half(dmin[at]),
                         run.out + (first + b) * Format::bytes);
        }
    }
}

}  // namespace

void quantize_q2_k(const Run& run) { quantize<Q2K>(run); }
void quantize_q4_k(const Run& run) { quantize<Q4K>(run); }
void quantize_q5_k(const Run& run) { quantize<Q5K>(run); }

}  // namespace clarion::quantize
