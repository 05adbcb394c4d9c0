// The best scale and offset of a group whose weights are scale * code + low, codes being 0 .. most.
//
// For given codes q both follow from weighted least squares. Codes are found by rounding (x - low) / scale:
// candidates shrink or stretch the group's range, then rounding and refitting take turns.
#pragma once

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

}  // namespace clarion::quantize
