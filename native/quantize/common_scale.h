// A block's scale d and one small integer r for each group, so that d * (r + offset) is close to the scales that
// the groups would like to have.
#pragma once

#include "quantize/tile.h"

namespace clarion::quantize {

// The d that makes sum over groups of h (s - d (r + offset))^2 small, where r in [low, high] is the best
// integer for each group. `s` are the groups' own scales, `h` what a deviation costs: sum(w c^2). Candidates
// stand in the lanes: they map the largest |s| to integers from the last one down by half, and where groups
// count differently (`weighted`) also that which would cost most to lose.
[[gnu::noinline]] inline float common_scale(const float* s, const float* h, int groups, float low, float high,
                                            float offset, bool weighted = false) {
    float most = 0.0f, heaviest = 0.0f, cost = 0.0f;
    for (int g = 0; g < groups; ++g) {
        if (std::fabs(s[g]) > std::fabs(most)) most = s[g];
        if (h[g] * s[g] * s[g] > cost) {
            cost = h[g] * s[g] * s[g];
            heaviest = s[g];
        }
    }
    // Where integers are signed, the lowest has the largest magnitude.
    const float end = (low < 0 ? low : high) + offset;
    F best_error = all(3e38f), best = all(0.0f);
    const auto attempt = [&](float most) {
        if (std::fabs(most) < 1e-37f) return;
        for (int round = 0; round < 2; ++round) {
            alignas(64) float candidate[lanes];
            for (int k = 0; k < lanes; ++k)
                candidate[k] =
                    most / (end * (1.03f - static_cast<float>(lanes * round + k) * (0.5f / (2 * lanes))));
            const F d = load(candidate), to_integer = inverse(d);
            F error = all(0.0f);
            for (int g = 0; g < groups; ++g) {
                const F r = rounded(clamp(all(s[g]) * to_integer - all(offset), all(low), all(high)));
                error = error + all(h[g]) * square(all(s[g]) - d * (r + all(offset)));
            }
            const I better = error < best_error;
            best = select(better, d, best);
            best_error = select(better, error, best_error);
        }
    };
    attempt(most);
    if (weighted && heaviest != most) attempt(heaviest);
    alignas(64) float error[lanes], d[lanes];
    store(error, best_error);
    store(d, best);
    return d[std::min_element(error, error + lanes) - error];
}

// As the file keeps it. Where groups count differently, it is not rounded to nothing, which is judged apart.
inline float common_half(float d, bool weighted) {
    const float kept = to_half(d).value;
    return weighted && kept == 0.0f && d != 0.0f ? std::copysign(0x1p-24f, d) : kept;
}

}  // namespace clarion::quantize
