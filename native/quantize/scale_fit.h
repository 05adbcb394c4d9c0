// The best scale of a group whose weights are scale * level, the levels being a format's.
//
// For given levels c the best scale is sum(w x c) / sum(w c^2), and it lowers the error sum(w x^2) by
// gain = sum(w x c)^2 / sum(w c^2). Levels are found by rounding x / scale: candidates for the scale put the
// largest weight near either end of the levels, then rounding and refitting take turns.
#pragma once

#include "quantize/tile.h"

namespace clarion::quantize {

// Levels low, low + 1, .. high.
template <int low_, int high_>
struct Integers {
    static constexpr float low = low_, high = high_;
    CLARION_LANES static F nearest(F v) { return rounded(clamp(v, all(low), all(high))); }
    CLARION_LANES static I code(F v) { return truncated(nearest(v) - all(low)); }
};

struct ScaleFit {
    F scale = all(0.0f);
    F cc = all(0.0f);    // sum(w c^2)
    F gain = all(0.0f);  // what the scale takes off sum(w x^2)
};

template <typename Levels, int n>
CLARION_LANES void try_inverse(const Tile<n>& tile, F inverse, ScaleFit& best) {
    F xc = all(0.0f), cc = all(0.0f);
    CLARION_UNROLL
    for (int j = 0; j < n; ++j) {
        const F c = Levels::nearest(tile.x[j] * inverse), wc = tile.w[j] * c;
        xc = xc + wc * tile.x[j];
        cc = cc + wc * c;
    }
    const F scale = ratio(xc, cc), gain = scale * xc;
    const I better = gain > best.gain;
    best.scale = select(better, scale, best.scale);
    best.cc = select(better, cc, best.cc);
    best.gain = select(better, gain, best.gain);
}

// The element of largest magnitude of each group, with its sign.
template <int n>
CLARION_LANES F extreme(const F (&x)[n]) {
    F most = x[0];
    for (int j = 1; j < n; ++j) most = select(abs(x[j]) > abs(most), x[j], most);
    return most;
}

// `steps` candidates map the largest weight to levels from `from` to `to` times an end of the levels, either end.
template <typename Levels, int n>
[[gnu::noinline]] ScaleFit fit_scale(const Tile<n>& tile, int steps, float from, float to, int refinements) {
    ScaleFit best;
    const F top = inverse(extreme(tile.x));
    for (int k = 0; k < 2 * steps + refinements; ++k) {
        const float t = from + (to - from) * static_cast<float>(k / 2) / static_cast<float>(steps - 1);
        const F candidate = top * all(t * (k % 2 == 0 ? Levels::low : Levels::high));
        try_inverse<Levels>(tile, k < 2 * steps ? candidate : inverse(best.scale), best);
    }
    return best;
}

// sum(w (x - scale * level)^2), each weight at its nearest level.
template <typename Levels, int n>
[[gnu::noinline]] F scale_error(const Tile<n>& tile, F scale) {
    const F to_level = inverse(scale);
    F error = all(0.0f);
    CLARION_UNROLL
    for (int j = 0; j < n; ++j)
        error = error + tile.w[j] * square(tile.x[j] - scale * Levels::nearest(tile.x[j] * to_level));
    return error;
}

// The weight of each group that counts most: with the largest w x^2.
template <int n>
[[gnu::noinline]] F heaviest(const Tile<n>& tile) {
    F found = all(0.0f), most = all(0.0f);
    for (int j = 0; j < n; ++j) {
        const F wxx = tile.w[j] * square(tile.x[j]);
        found = select(wxx > most, tile.x[j], found);
        most = max(most, wxx);
    }
    return found;
}

// A scale in f16 for weights that count differently, judged by the error that it leaves: zero, `plain` (what
// is written if all count alike), and as above, from the largest weight and from the one that counts most.
template <typename Levels, int n>
[[gnu::noinline]] F fit_weighted(const Tile<n>& tile, F plain, int steps, float from, float to) {
    Best best(all(0.0f), [&](F d) { return scale_error<Levels>(tile, d); });
    best.attempt(plain);
    const auto attempt = [&](F inverse) __attribute__((noinline)) {
        ScaleFit found;
        try_inverse<Levels>(tile, inverse, found);
        best.attempt(rounded_to_half(found.scale));
    };
    // Either end of the levels, which is the same where they are those of the other sign.
    const auto range = [&](F end, int count) {
        const F top = inverse(end);
        for (int k = 0; k < count; ++k) {
            const float t = from + (to - from) * static_cast<float>(k) / static_cast<float>(count - 1);
            attempt(top * all(t * Levels::high));
            if constexpr (Levels::low != -Levels::high) attempt(top * all(t * Levels::low));
        }
    };
    range(extreme(tile.x), steps);
    range(heaviest(tile), (steps + 2) / 2);
    for (int k = 0; k < 2; ++k) attempt(inverse(best.way));
    return best.way;
}

}  // namespace clarion::quantize
