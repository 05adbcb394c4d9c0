// The formats whose blocks of 256 weights have one scale d: f16 and a small signed integer s for each group:
// weight = d * s * level. Q3_K and Q6_K have 16 groups of 16, IQ4_XS has 8 of 32; IQ4_NL has no s.
#include "quantize/block_256.h"
#include "quantize/common_scale.h"
#include "quantize/iq4_levels.h"
#include "quantize/quantizers.h"
#include "quantize/scale_fit.h"

namespace clarion::quantize {

namespace {

struct Q3K {
    using Levels = Integers<-4, 3>;
    static constexpr int n = 16, bytes = 110;
    static constexpr float low = -32, high = 31;
    static constexpr int steps = 8;
    static constexpr float from = 0.75f, to = 1.1f;

    static void pack(const uint8_t* code, const int* s, Half d, uint8_t* out) {
        std::memset(out, 0, 32);
        for (int i = 0; i < 256; ++i) out[i % 32] |= static_cast<uint8_t>(code[i] >> 2 << i / 32);
        pack_pairs(code, out + 32);
        std::memset(out + 96, 0, 12);
        for (int g = 0; g < 16; ++g) {
            const int bits = s[g] + 32;
            out[96 + g % 8] |= static_cast<uint8_t>((bits & 15) << 4 * (g / 8));
            out[104 + g % 4] |= static_cast<uint8_t>(bits >> 4 << 2 * (g / 4));
        }
        put_u16(out + 108, d.bits);
    }
};

struct Q6K {
    using Levels = Integers<-32, 31>;
    static constexpr int n = 16, bytes = 210;
    static constexpr float low = -128, high = 127;
    static constexpr int steps = 5;
    static constexpr float from = 0.93f, to = 1.03f;

    static void pack(const uint8_t* code, const int* s, Half d, uint8_t* out) {
        for (int half = 0; half < 2; ++half, code += 128)
            for (int i = 0; i < 32; ++i) {
                out[64 * half + i] = static_cast<uint8_t>((code[i] & 15) | (code[64 + i] & 15) << 4);
                out[64 * half + 32 + i] =
                    static_cast<uint8_t>((code[32 + i] & 15) | (code[96 + i] & 15) << 4);
                out[128 + 32 * half + i] = static_cast<uint8_t>(
                    code[i] >> 4 | code[32 + i] >> 4 << 2 | code[64 + i] >> 4 << 4 | code[96 + i] >> 4 << 6);
            }
        for (int g = 0; g < 16; ++g) out[192 + g] = static_cast<uint8_t>(s[g]);
        put_u16(out + 208, d.bits);
    }
};

struct IQ4XS {
    using Levels = Iq4Levels;
    static constexpr int n = 32, bytes = 136;
    static constexpr float low = -32, high = 31;
    static constexpr int steps = 8;
    static constexpr float from = 0.8f, to = 1.1f;

    static void pack(const uint8_t* code, const int* s, Half d, uint8_t* out) {
        uint32_t high_bits = 0;
        std::memset(out + 4, 0, 4);
        for (int g = 0; g < 8; ++g) {
            const auto bits = static_cast<uint32_t>(s[g] + 32);
            high_bits |= bits >> 4 << 2 * g;
            out[4 + g / 2] |= static_cast<uint8_t>((bits & 15) << 4 * (g % 2));
            pack_nibbles(code + 32 * g, 16, out + 8 + 16 * g);
        }
        put_u16(out, d.bits);
        put_u16(out + 2, high_bits);
    }
};

// Blocks' scales, in the lanes of their groups, and the groups' integers.
struct Choice {
    F d, s;
};
CLARION_LANES Choice select(I mask, const Choice& yes, const Choice& no) {
    return {select(mask, yes.d, no.d), select(mask, yes.s, no.s)};
}

// Of the integers r - 1, r, r + 1 the one with the least error in each group, given its block's scale.
template <typename Format>
[[gnu::noinline]] F best_integer(const Tile<Format::n>& tile, F d, F r) {
    F best = r, least = all(3e38f);
    for (const float step : {0.0f, -1.0f, 1.0f}) {
        const F s = clamp(r + all(step), all(Format::low), all(Format::high));
        const F error = scale_error<typename Format::Levels>(tile, d * s);
        const I better = error < least;
        best = select(better, s, best);
        least = select(better, error, least);
    }
    return best;
}

// Each block's scale, in the lanes of its groups, from the groups' sums and integers.
template <typename Format>
[[gnu::noinline]] F refit(const Tile<Format::n>& tile, F d, F s) {
    const F to_level = inverse(d * s);
    F xc = all(0.0f), cc = all(0.0f);
    for (int j = 0; j < Format::n; ++j) {
        const F c = Format::Levels::nearest(tile.x[j] * to_level), wc = tile.w[j] * c;
        xc = xc + wc * tile.x[j];
        cc = cc + wc * c;
    }
    constexpr int groups = 256 / Format::n;
    return rounded_to_half(
        ratio(sum_of_blocks<groups>(tile.mass * xc * s), sum_of_blocks<groups>(tile.mass * cc * s * s)));
}

// The integers that come near the groups' own scales, then neighbours of them and the common scale, in turns.
template <typename Format>
[[gnu::noinline]] Choice settled(const Tile<Format::n>& tile, F scale, F d) {
    F s = rounded(clamp(scale * inverse(d), all(Format::low), all(Format::high)));
    for (int round = 0; round < 2; ++round) {
        s = best_integer<Format>(tile, d, s);
        d = refit<Format>(tile, d, s);
    }
    return {d, best_integer<Format>(tile, d, s)};
}

// Each block's common scale for its groups' own ones.
template <typename Format>
[[gnu::noinline]] F common(const Tile<Format::n>& tile, const ScaleFit& fit, bool weighted) {
    constexpr int groups = 256 / Format::n;
    alignas(64) float scale[lanes], cost[lanes], d[lanes];
    store(scale, fit.scale);
    store(cost, tile.mass * fit.cc);
    for (int b = 0; b < lanes; b += groups)
        std::fill_n(
            d + b, groups,
            common_half(common_scale(scale + b, cost + b, groups, Format::low, Format::high, 0.0f, weighted),
                        weighted));
    return load(d);
}

template <typename Format>
[[gnu::noinline]] Choice search(const Tile<Format::n>& tile) {
    const ScaleFit fit = fit_scale<typename Format::Levels>(tile, Format::steps, Format::from, Format::to, 2);
    return settled<Format>(tile, fit.scale, common<Format>(tile, fit, false));
}

// Where weights count differently, by the error of the whole block: zeros, what is written if all count
// alike, and the search from the largest weights or from those that count most, with several common scales.
template <typename Format>
[[gnu::noinline]] Choice search_weighted(const Tile<Format::n>& tile) {
    using Levels = typename Format::Levels;
    constexpr int groups = 256 / Format::n;
    Best best(Choice{all(0.0f), all(0.0f)}, [&](const Choice& at) {
        return sum_of_blocks<groups>(tile.mass * scale_error<Levels>(tile, at.d * at.s));
    });
    best.attempt(search<Format>(tile.alike()));
    ScaleFit fit = fit_scale<Levels>(tile, Format::steps, Format::from, Format::to, 2);
    const F top = inverse(heaviest(tile));
    for (const float t : {1.0f, 0.8f, 0.6f})
        for (const float end : {Levels::low, Levels::high})
            try_inverse<Levels>(tile, top * all(t * end), fit);
    const F d = common<Format>(tile, fit, true);
    for (const float t : {1.0f, 0.83f, 1.21f, 1.5f})
        best.attempt(settled<Format>(tile, fit.scale, rounded_to_half(d * all(t))));
    // A group of which no integer keeps anything is nothing.
    const F error = scale_error<Levels>(tile, best.way.d * best.way.s);
    best.way.s = select(scale_error<Levels>(tile, all(0.0f)) < error, all(0.0f), best.way.s);
    return best.way;
}

template <typename Format>
void quantize(const Run& run) {
    constexpr int n = Format::n, groups = 256 / n, blocks = lanes / groups;
    Tile<n> tile;
    for (int64_t first = 0; first < run.n_blocks; first += blocks) {
        const int count = static_cast<int>(std::min<int64_t>(blocks, run.n_blocks - first));
        tile.load(run, 256 * first, groups * count);
        const auto [d, s] = run.importance == nullptr ? search<Format>(tile) : search_weighted<Format>(tile);

        Codes<n> codes;
        const F to_level = inverse(d * s);
        codes.fill([&](int j) { return Format::Levels::code(tile.x[j] * to_level); });
        alignas(64) int32_t integers[lanes];
        alignas(64) float d_of[lanes];
        store(integers, truncated(s));
        store(d_of, d);
        for (int b = 0; b < count; ++b)
            Format::pack(codes.of[groups * b], integers + groups * b, to_half(d_of[groups * b]),
                         run.out + (first + b) * Format::bytes);
    }
}

}  // namespace

void quantize_q3_k(const Run& run) { quantize<Q3K>(run); }
void quantize_q6_k(const Run& run) { quantize<Q6K>(run); }
void quantize_iq4_xs(const Run& run) { quantize<IQ4XS>(run); }

void quantize_iq4_nl(const Run& run) {
    Tile<32> tile;
    for (int64_t first = 0; first < run.n_blocks; first += lanes) {
        const int count = static_cast<int>(std::min<int64_t>(lanes, run.n_blocks - first));
        tile.load(run, 32 * first, count);
        const auto fit = [](const Tile<32>& t) {
            return rounded_to_half(fit_scale<Iq4Levels>(t, 8, 0.8f, 1.1f, 2).scale);
        };
        const F d = run.importance == nullptr
                        ? fit(tile)
                        : fit_weighted<Iq4Levels>(tile, fit(tile.alike()), 8, 0.8f, 1.1f);
        const F to_level = inverse(d);
        Codes<32> codes;
        codes.fill([&](int j) { return Iq4Levels::code(tile.x[j] * to_level); });
        alignas(64) float d_of[lanes];
        store(d_of, d);
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + 18 * (first + b);
            put_u16(out, to_half(d_of[b]).bits);
            pack_nibbles(codes.of[b], 16, out + 2);
        }
    }
}

}  // namespace clarion::quantize
