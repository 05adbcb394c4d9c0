// The formats whose blocks of 256 weights have two scales d and dmin: f16, and for each group two small integers
// s and m: weight = d * s * code - dmin * m. Q2_K has 16 groups of 16, Q4_K and Q5_K have 8 of 32.
#include "quantize/affine_fit.h"
#include "quantize/block_256.h"
#include "quantize/common_scale.h"
#include "quantize/quantizers.h"
#include "quantize/scale_fit.h"

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

// What the searches need to know of a format: the last code, the last integer, and how many ranges to try.
struct Limits {
    float most, most_integer;
    int steps;
};

// sum(w (x - scale * code - low)^2), each weight at its nearest code.
template <int n>
[[gnu::noinline]] F error_of(const Tile<n>& tile, F scale, F low, const Limits& limits) {
    const F to_code = inverse(scale), shift = low * to_code;
    F error = all(0.0f);
    CLARION_UNROLL
    for (int j = 0; j < n; ++j) {
        const F q = rounded(clamp(tile.x[j] * to_code - shift, all(0.0f), all(limits.most)));
        error = error + tile.w[j] * square(tile.x[j] - low - scale * q);
    }
    return error;
}

// A block's integers in the lanes of its groups, with its two scales in each.
struct Choice {
    F d, dmin, s, m;
    Affine group() const { return {d * s, all(0.0f) - dmin * m}; }
};
CLARION_LANES Choice select(I mask, const Choice& yes, const Choice& no) {
    return {select(mask, yes.d, no.d), select(mask, yes.dmin, no.dmin), select(mask, yes.s, no.s),
            select(mask, yes.m, no.m)};
}

// Integers that lower the groups' errors: s up to `reach` from what it is, m up to `reach_m`.
template <int n, int reach = 1, int reach_m = 1>
[[gnu::noinline]] void improve_integers(const Tile<n>& tile, Choice& at, const Limits& limits) {
    const F most = all(limits.most_integer), none = all(0.0f);
    F least = error_of<n>(tile, at.d * at.s, none - at.dmin * at.m, limits);
    const auto attempt = [&](F s, F m) {
        s = clamp(s, none, most);
        m = clamp(m, none, most);
        const F error = error_of<n>(tile, at.d * s, none - at.dmin * m, limits);
        const I better = error < least;
        at.s = select(better, s, at.s);
        at.m = select(better, m, at.m);
        least = select(better, error, least);
    };
    const F s = at.s, m = at.m;
    for (int ds = -reach; ds <= reach; ++ds)
        for (int dm = -reach_m; dm <= reach_m; ++dm)
            if (ds != 0 || dm != 0) attempt(s + all(static_cast<float>(ds)), m + all(static_cast<float>(dm)));
}

// Sums over each block from which its scales follow: sum(w (x - d (s q) + dmin m)^2) is to be least.
struct BlockMoments {
    F aa, ab, bb, xa, xb;
    F dmin_beside(F d) const { return ratio(d * ab - xb, bb); }
};
template <int n>
[[gnu::noinline]] BlockMoments block_moments(const Tile<n>& tile, const Choice& at, const Limits& limits) {
    constexpr int groups = 256 / n;
    const Moments v = moments(tile, inverse(at.d * at.s), all(0.0f) - at.dmin * at.m, limits.most);
    const F s = tile.mass * at.s, m = tile.mass * at.m;
    return {sum_of_blocks<groups>(v.qq * s * at.s), sum_of_blocks<groups>(v.q * s * at.m),
            sum_of_blocks<groups>(v.w * m * at.m), sum_of_blocks<groups>(v.xq * s),
            sum_of_blocks<groups>(v.x * m)};
}

// Both scales of each block from weighted least squares, given its integers and the codes nearest to them.
template <int n, bool weighted>
[[gnu::noinline]] void refit_scales(const Tile<n>& tile, Choice& at, const Limits& limits) {
    const BlockMoments v = block_moments<n>(tile, at, limits);
    const F none = all(0.0f), size = v.aa * v.bb, det = size - v.ab * v.ab;
    const I solvable = det > all(det_rounding(256)) * size;
    F d = select(solvable, ratio(v.bb * v.xa - v.ab * v.xb, det), ratio(v.xa + at.dmin * v.ab, v.aa));
    F dmin = select(solvable, ratio(v.ab * v.xa - v.aa * v.xb, det), at.dmin);
    if constexpr (weighted) {  // the one that suits the other, once that is rounded
        d = rounded_to_half(max(select(dmin < none, ratio(v.xa, v.aa), d), none));
        dmin = select(v.bb > none, v.dmin_beside(d), at.dmin);
    }
    at.d = rounded_to_half(max(d, none));
    at.dmin = rounded_to_half(max(dmin, none));
}

// The common scales of blocks for what their groups would like to have, and what deviations from it cost.
template <int n>
[[gnu::noinline]] F common(F wanted, F cost, bool weighted, const Limits& limits) {
    constexpr int groups = 256 / n;
    alignas(64) float s[lanes], h[lanes], d[lanes];
    store(s, wanted);
    store(h, cost);
    for (int b = 0; b < lanes; b += groups)
        std::fill_n(d + b, groups,
                    common_half(common_scale(s + b, h + b, groups, 0.0f, limits.most_integer, 0.0f, weighted),
                                weighted));
    return load(d);
}

F integer(F x, float most) { return rounded(clamp(x, all(0.0f), all(most))); }

// Scales and integers that come near the groups' own scale and offset, then neighbours of the integers and
// the scales in turns; `judge` hears of each result.
template <int n, bool weighted, typename Judge>
[[gnu::noinline]] Choice search(const Tile<n>& tile, const Affine& own, const Limits& limits, Judge judge) {
    const F none = all(0.0f);
    const Moments v = moments(tile, inverse(own.scale), own.low, limits.most);
    // Of a deviation of the scale, once low has been fitted again.
    const F cost = v.qq - ratio(v.q * v.q, v.w);
    Choice choice{common<n>(own.scale, weighted ? tile.mass * max(cost, none) : cost, weighted, limits),
                  common<n>(none - own.low, tile.mass * v.w, weighted, limits), none, none};
    choice.s = integer(own.scale * inverse(choice.d), limits.most_integer);
    choice.m = integer((none - own.low) * inverse(choice.dmin), limits.most_integer);
    for (int round = 0; round < 2; ++round) {
        improve_integers<n>(tile, choice, limits);
        judge(choice);
        refit_scales<n, weighted>(tile, choice, limits);
    }
    improve_integers<n>(tile, choice, limits);
    judge(choice);
    return choice;
}

template <int n>
[[gnu::noinline]] Choice search_alike(const Tile<n>& tile, const Limits& limits) {
    const AffineFit fit = fit_affine<n, true>(tile, limits.most, limits.steps, 2);
    return search<n, false>(tile, {fit.scale, fit.low}, limits, [](const Choice&) {});
}

// Without minima.
template <int n, typename Judge>
[[gnu::noinline]] void search_scales(const Tile<n>& tile, const Limits& limits, Judge judge) {
    const F none = all(0.0f);
    Tile<n> positive = tile;  // a scale has no sign
    for (F& x : positive.x) x = max(x, none);
    ScaleFit fit;
    const auto attempt = [&](F to_code) __attribute__((noinline)) {
        const Moments m = moments(positive, to_code, none, limits.most);
        const F scale = ratio(m.xq, m.qq), gain = scale * m.xq;
        const I better = gain > fit.gain;
        fit = {select(better, scale, fit.scale), select(better, m.qq, fit.cc),
               select(better, gain, fit.gain)};
    };
    for (const F end : {extreme(positive.x), heaviest(positive)})
        for (const float t : {0.75f, 0.83f, 0.9f, 0.96f, 1.0f, 1.1f})
            attempt(inverse(end) * all(t * limits.most));
    attempt(inverse(fit.scale));
    const F common_d = common<n>(fit.scale, tile.mass * fit.cc, true, limits);
    // Where few weights of a group count, a fraction of its scale with larger codes fits them as well, and
    // others better.
    for (const float part : {1.0f, 0.5f, 0.34f}) {
        const F d = rounded_to_half(common_d * all(part));
        Choice choice{d, none, integer(fit.scale * inverse(d), limits.most_integer), none};
        for (int round = 0; round < 2; ++round) {
            improve_integers<n, 1, 0>(tile, choice, limits);
            judge(choice);
            refit_scales<n, true>(tile, choice, limits);
        }
        judge(choice);
        // A scale that is a little too large, and minima that take the rest, where all groups leave the same.
        choice.d = rounded_to_half(choice.d * all(1.0f + 0x1p-10f));
        choice.m = all(1.0f);
        choice.dmin =
            rounded_to_half(max(block_moments<n>(tile, choice, limits).dmin_beside(choice.d), none));
        judge(choice);
    }
}

// Where weights count differently, by the error of the whole block: zeros, what is written if all count
// alike, and searches with minima and without.
template <int n>
[[gnu::noinline]] Choice search_weighted(const Tile<n>& tile, const Limits& limits) {
    constexpr int groups = 256 / n;
    const F none = all(0.0f);
    Best best(Choice{none, none, none, none}, [&](const Choice& at) {
        return sum_of_blocks<groups>(tile.mass * affine_error(tile, at.group(), limits.most));
    });
    best.attempt(search_alike<n>(tile.alike(), limits));
    const auto judge = [&](const Choice& at) { best.attempt(at); };
    search_scales<n>(tile, limits, judge);
    Best own(Affine{none, none}, [&](const Affine& way) { return affine_error(tile, way, limits.most); });
    fit_ranges<n, true>(tile, limits.most, limits.steps, [](F x) { return x; }, own);
    search<n, true>(tile, own.way, limits, judge);
    // Where few weights of a group count, integers farther away may come nearer.
    Choice choice = best.way;
    improve_integers<n, 7, 0>(tile, choice, limits);
    judge(choice);
    refit_scales<n, true>(tile, choice, limits);
    judge(choice);
    return best.way;
}

template <typename Format>
void quantize(const Run& run) {
    constexpr int n = Format::n, groups = 256 / n, blocks = lanes / groups;
    static constexpr Limits limits{Format::most, Format::most_integer, Format::steps};
    Tile<n> tile;
    for (int64_t first = 0; first < run.n_blocks; first += blocks) {
        const int count = static_cast<int>(std::min<int64_t>(blocks, run.n_blocks - first));
        tile.load(run, 256 * first, groups * count);
        Choice choice;
        Codes<n> codes;
        if (run.importance == nullptr) {
            choice = search_alike<n>(tile, limits);
            const F to_code = inverse(choice.d * choice.s),
                    shift = (all(0.0f) - choice.dmin * choice.m) * to_code;
            codes.fill([&](int j) {
                return truncated(rounded(clamp(tile.x[j] * to_code - shift, all(0.0f), all(Format::most))));
            });
        } else {
            choice = search_weighted<n>(tile, limits);
            const Affine way = choice.group();
            const F to_code = inverse(way.scale);
            codes.fill(
                [&](int j) { return truncated(affine_code(tile.x[j], to_code, way.low, Format::most)); });
        }
        alignas(64) int32_t s[lanes], m[lanes];
        alignas(64) float d[lanes], dmin[lanes];
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
