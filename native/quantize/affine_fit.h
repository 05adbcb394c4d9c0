// The best scale and offset of a group whose weights are scale * code + low, codes being 0 .. most.
//
// For given codes q both follow from weighted least squares. Codes are found by rounding (x - low) / scale:
// candidates shrink or stretch the group's range, then rounding and refitting take turns.
#pragma once

#include "quantize/scale_fit.h"
#include "quantize/tile.h"

namespace clarion::quantize {

struct AffineFit {
    F scale = all(0.0f), low = all(0.0f);
    F gain = all(-1.0f);  // what they take off sum(w x^2)
};

// Sums over a group that a fit of both needs.
struct Moments {
    F w = all(0.0f), x = all(0.0f), q = all(0.0f), qq = all(0.0f), xq = all(0.0f);
};

template <int n>
[[gnu::noinline]] Moments moments(const Tile<n>& tile, F to_code, F low, float most) {
    Moments m;
    const F shift = low * to_code;
    CLARION_UNROLL
    for (int j = 0; j < n; ++j) {
        const F x = tile.x[j], w = tile.w[j];
        const F q = rounded(clamp(x * to_code - shift, all(0.0f), all(most))), wq = w * q;
        m.w = m.w + w;
        m.x = m.x + w * x;
        m.q = m.q + wq;
        m.qq = m.qq + wq * q;
        m.xq = m.xq + wq * x;
    }
    return m;
}

// `not_above_zero`: the format stores -low without a sign.
template <int n, bool not_above_zero>
[[gnu::noinline]] void try_range(const Tile<n>& tile, F to_code, F low, float most, AffineFit& best) {
    const Moments m = moments(tile, to_code, low, most);
    const F det = m.w * m.qq - m.q * m.q;
    F scale = ratio(m.w * m.xq - m.q * m.x, det);
    F offset = select(det > all(0.0f), ratio(m.qq * m.x - m.q * m.xq, det), ratio(m.x, m.w));
    if constexpr (not_above_zero) {
        const I above = offset > all(0.0f);
        scale = select(above, ratio(m.xq, m.qq), scale);
        offset = min(offset, all(0.0f));
    }
    const F gain = scale * m.xq + offset * m.x;
    const I better = gain > best.gain;
    best.scale = select(better, scale, best.scale);
    best.low = select(better, offset, best.low);
    best.gain = select(better, gain, best.gain);
}

template <int n, bool not_above_zero>
[[gnu::noinline]] AffineFit fit_affine(const Tile<n>& tile, float most, int steps, int refinements) {
    AffineFit best;
    F low = tile.x[0], high = tile.x[0];
    for (int j = 1; j < n; ++j) {
        low = min(low, tile.x[j]);
        high = max(high, tile.x[j]);
    }
    if constexpr (not_above_zero) low = min(low, all(0.0f));
    const F to_unit = inverse(high - low);
    for (int k = 0; k < steps + refinements; ++k) {
        // From codes that leave an eighth of the range unused to such that clip it.
        const float stretch = most * (0.88f + 0.30f * static_cast<float>(k) / static_cast<float>(steps - 1));
        if (k < steps)
            try_range<n, not_above_zero>(tile, to_unit * all(stretch), low, most, best);
        else
            try_range<n, not_above_zero>(tile, inverse(best.scale), best.low, most, best);
    }
    return best;
}

// What of w * qq - q * q may be rounding: sums of n products that are not negative are each off by n + 1
// units of 2^-24 at most, their products by 2 n + 3, and q * q is at most w * qq.
constexpr float det_rounding(int n) { return static_cast<float>(4 * n + 8) * 0x1p-24f; }

struct Affine {
    F scale, low;
};
CLARION_LANES Affine select(I mask, const Affine& yes, const Affine& no) {
    return {select(mask, yes.scale, no.scale), select(mask, yes.low, no.low)};
}

CLARION_LANES F affine_code(F x, F to_code, F low, float most) {
    return rounded(clamp((x - low) * to_code, all(0.0f), all(most)));
}

// sum(w (x - (scale * code + low))^2), each weight at its nearest code.
template <int n>
[[gnu::noinline]] F affine_error(const Tile<n>& tile, const Affine& way, float most) {
    const F to_code = inverse(way.scale);
    F error = all(0.0f);
    CLARION_UNROLL
    for (int j = 0; j < n; ++j) {
        const F q = affine_code(tile.x[j], to_code, way.low, most);
        error = error + tile.w[j] * square(tile.x[j] - (way.scale * q + way.low));
    }
    return error;
}

// The codes that a scale and an offset give, and the scale and offset that suit these codes best.
//
// Where the codes of all weights that count are one code, any scale will do, and the offset must fit: the
// scale stays.
template <int n, bool not_above_zero, typename Stored, typename Best>
[[gnu::noinline]] void try_codes(const Tile<n>& tile, F to_code, F low, float most, Stored stored,
                                 Best& best) {
    const Moments m = moments(tile, to_code, low, most);
    const F size = m.w * m.qq, det = size - m.q * m.q;
    const I solvable = det > all(det_rounding(n)) * size;
    F scale = stored(select(solvable, ratio(m.w * m.xq - m.q * m.x, det), inverse(to_code)));
    F offset = stored(ratio(m.x - scale * m.q, m.w));
    if constexpr (not_above_zero) {
        scale = select(offset > all(0.0f), stored(ratio(m.xq, m.qq)), scale);
        offset = min(offset, all(0.0f));
    }
    best.attempt({scale, offset});
}

// Scales of weights that count differently, without an offset, judged by what is left of the error after
// stored(), which rounds as the file does: the largest weight, or the one that counts most, is put near the
// last code. Then the offset takes what the best of them leaves.
template <int n, typename Stored, typename Best>
[[gnu::noinline]] void fit_scales(const Tile<n>& tile, float most, Stored stored, Best& best) {
    for (const F end : {extreme(tile.x), heaviest(tile)})
        for (int k = 0; k <= 10; ++k) {
            const float t = 0.6f + 0.05f * static_cast<float>(k);
            const Moments m = moments(tile, inverse(end) * all(t * most), all(0.0f), most);
            best.attempt({stored(ratio(m.xq, m.qq)), all(0.0f)});
        }
    try_codes<n, false>(tile, inverse(best.way.scale), best.way.low, most, stored, best);
}

// With an offset: the range of all weights, stretched or shrunk, and ranges around the mean of those that
// count.
template <int n, bool not_above_zero, typename Stored, typename Best>
[[gnu::noinline]] void fit_ranges(const Tile<n>& tile, float most, int steps, Stored stored, Best& best) {
    F low = tile.x[0], high = tile.x[0], w = all(0.0f), wx = all(0.0f), deviation = all(0.0f);
    for (int j = 0; j < n; ++j) {
        low = min(low, tile.x[j]);
        high = max(high, tile.x[j]);
        w = w + tile.w[j];
        wx = wx + tile.w[j] * tile.x[j];
    }
    const F mean = ratio(wx, w);
    for (int j = 0; j < n; ++j) deviation = deviation + tile.w[j] * abs(tile.x[j] - mean);
    deviation = ratio(deviation, w);
    const auto range = [&](F from, F to, float codes) {
        if constexpr (not_above_zero) from = min(from, all(0.0f));
        try_codes<n, not_above_zero>(tile, inverse(to - from) * all(codes), from, most, stored, best);
    };
    for (int k = 0; k < steps; ++k)
        range(low, high, most * (0.88f + 0.30f * static_cast<float>(k) / static_cast<float>(steps - 1)));
    for (const float k : {1.0f, 1.7f, 2.7f, 4.0f})
        range(mean - all(k) * deviation, mean + all(k) * deviation, most);
    for (int k = 0; k < 2; ++k)
        try_codes<n, not_above_zero>(tile, inverse(best.way.scale), best.way.low, most, stored, best);
}

}  // namespace clarion::quantize
