// A block of 256 weights whose groups are entries of a codebook times d * factor * (s + 1/2): finds d, and s of each
// group.
//
// A Format has: n (weights of a group), most (the largest s), factor, and the range of scales to begin with, as
// multiples of a group's mean magnitude: `steps` of them, from `from` to `to`. A Group searches its entries for a
// given scale, keeps the best that it has seen, and knows the sums from which the scale follows that suits them.
#pragma once

#include "quantize/common_scale.h"
#include "quantize/shortlist.h"

namespace clarion::quantize {

template <typename Group>
float own_scale(const Group& group, float& xc, float& cc) {
    group.sums(xc, cc);
    return cc > 0 ? std::max(xc / cc, 0.0f) : 0.0f;
}

// The scale that a group would like to have, and what deviations from it cost.
template <typename Format, typename Group>
float fit_group(Group& group, float& cost) {
    constexpr int steps = Format::steps, refinements = 2;
    float sum = 0.0f, weight = 0.0f, xc;
    for (int j = 0; j < Format::n; ++j) {
        sum += group.w[j] * std::fabs(group.x[j]);
        weight += group.w[j];
    }
    const float mean = sum / weight;
    for (int k = 0; k < steps; ++k)
        group.attempt(mean *
                      (Format::from + (Format::to - Format::from) / (steps - 1) * static_cast<float>(k)));
    float scale = own_scale(group, xc, cost);
    for (int k = 0; k < refinements && group.attempt(scale); ++k) scale = own_scale(group, xc, cost);
    return scale;
}

// Leaves in each group the entries to write, in `s` the integers, and returns d.
template <typename Format, typename Group>
Half fit_block(const float* x, const float* w, Group* group, int* s) {
    constexpr int groups = 256 / Format::n;
    float scale[groups], cost[groups];
    for (int g = 0; g < groups; ++g) {
        group[g].x = x + Format::n * g;
        group[g].w = w + Format::n * g;
        scale[g] = fit_group<Format>(group[g], cost[g]);
    }
    Half d = to_half(common_scale(scale, cost, groups, 0.0f, Format::most, 0.5f) / Format::factor);
    for (int round = 0;; ++round) {
        const float unit = d.value * Format::factor;
        float above = 0.0f, below = 0.0f;
        for (int g = 0; g < groups; ++g) {
            const float best = unit > 0 ? scale[g] / unit - 0.5f : 0.0f;
            const float middle = std::floor(std::clamp(best, 0.0f, Format::most) + 0.5f);
            group[g].error = 3e38f;
            for (float r = std::max(middle - 1, 0.0f); r <= std::min(middle + 1, Format::most); ++r)
                if (group[g].attempt(unit * (r + 0.5f))) s[g] = static_cast<int>(r);
            float xc, cc;
            scale[g] = own_scale(group[g], xc, cc);
            const float r = static_cast<float>(s[g]) + 0.5f;
            above += r * xc;
            below += r * r * cc;
        }
        if (round == 1 || !(below > 0)) return d;
        d = to_half(std::max(above / below, 0.0f) / Format::factor);
    }
}

// body(x, w, out) for each block of 256 weights.
template <typename Format, typename Body>
void each_block(const Run& run, Body body) {
    alignas(64) float w[256];
    std::fill_n(w, 256, 1.0f);
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        if (run.importance != nullptr)
            std::memcpy(w, run.importance + (run.column + 256 * b) % run.cols, sizeof w);
        body(run.x + 256 * b, w, run.out + Format::bytes * b);
    }
}

}  // namespace clarion::quantize
