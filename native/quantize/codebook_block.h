// A block of 256 weights whose groups are entries of a codebook times d * factor * (s + 1/2): finds d, and s
// of each group.
//
// A Format has: n (weights of a group), most (the largest s), factor, and the range of scales to begin with,
// as multiples of a group's mean magnitude: `steps` of them, from `from` to `to`. A Group searches its
// entries for a given scale, keeps the best that it has seen, and knows the sums from which the scale follows
// that suits them, and the value of each weight in multiples of the scale.
#pragma once

#include "quantize/common_scale.h"
#include "quantize/shortlist.h"

namespace clarion::quantize {

// The importance of 256 weights, as in a Tile: weights within a group, and masses of groups.
template <int n>
struct Weights {
    static constexpr int groups = 256 / n;
    alignas(64) float w[256];
    float mass[groups];
    bool alike = false;

    Weights() : alike(true) {
        std::fill_n(w, 256, 1.0f);
        std::fill_n(mass, groups, 1.0f);
    }
    explicit Weights(const float* importance) {
        for (int g = 0; g < groups; ++g) {
            const float most = mass[g] = *std::max_element(importance + n * g, importance + n * (g + 1));
            for (int j = n * g; j < n * (g + 1); ++j) w[j] = most > 0 ? importance[j] / most : 1.0f;
        }
    }
};

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
[[gnu::noinline]] Half fit_block(const float* x, const Weights<Format::n>& weights, Group* group, int* s) {
    constexpr int groups = 256 / Format::n;
    float scale[groups], cost[groups];
    for (int g = 0; g < groups; ++g) {
        group[g].x = x + Format::n * g;
        group[g].w = weights.w + Format::n * g;
        group[g].error = 3e38f;
        scale[g] = fit_group<Format>(group[g], cost[g]);
        cost[g] *= weights.mass[g];
    }
    Half d =
        to_half(common_scale(scale, cost, groups, 0.0f, Format::most, 0.5f, !weights.alike) / Format::factor);
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
            above += r * weights.mass[g] * xc;
            below += r * r * weights.mass[g] * cc;
        }
        if (round == 1 || !(below > 0)) return d;
        d = to_half(std::max(above / below, 0.0f) / Format::factor);
    }
}

// A block as the search leaves it.
template <typename Format, typename Group>
struct Fitted {
    static constexpr int groups = 256 / Format::n;
    Group group[groups];
    int s[groups];
    Half d;

    // sum(weight * (x - written)^2)
    [[gnu::noinline]] float error(const Weights<Format::n>& weights) const {
        float total = 0.0f;
        for (int g = 0; g < groups; ++g) {
            const float scale = d.value * Format::factor * (static_cast<float>(s[g]) + 0.5f);
            float error = 0.0f;
            for (int j = 0; j < Format::n; ++j) {
                const float off = group[g].x[j] - scale * group[g].value(j);
                error += weights.w[Format::n * g + j] * off * off;
            }
            total += weights.mass[g] * error;
        }
        return total;
    }
};

// For each block of 256 weights write(fitted, out). fit(x, weights, fitted) searches. Where weights count
// differently it does so twice, also as if all counted alike, and the better of both is written, or nothing
// where that is better still.
template <typename Format, typename Fitted, typename Fit, typename Write>
void each_block(const Run& run, Fit fit, Write write) {
    const Weights<Format::n> alike;
    Fitted found[2];
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        const float* x = run.x + 256 * b;
        fit(x, alike, found[0]);
        Fitted* best = &found[0];
        if (run.importance != nullptr) {
            const Weights<Format::n> weights(run.importance + (run.column + 256 * b) % run.cols);
            fit(x, weights, found[1]);
            float least = found[0].error(weights);
            if (const float error = found[1].error(weights); error < least) {
                best = &found[1];
                least = error;
            }
            const Half d = best->d;
            best->d = {0, 0.0f};
            if (!(best->error(weights) < least)) best->d = d;
        }
        write(*best, run.out + Format::bytes * b);
    }
}

}  // namespace clarion::quantize
