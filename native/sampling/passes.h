// What touches every logit, a block at a time. Basic operations in a fixed order: the same bits on every processor.
#pragma once

#include <cstdint>

namespace clarion::passes {

// Logits are looked at in blocks of this many: what lies in blocks whose greatest logit is too small is never
// read again. 256 floats are 16 full cache lines.
constexpr int64_t block = 256;

struct Extremes {
    float greatest, least;  // least of those above -infinity; +infinity if there is none
    bool numbers;           // none is NaN or +infinity
};
Extremes extremes(const float* x, int64_t n);

// e^x for x <= 0.
double exp_negative(double x);

// weights[i] = e^((x[i] - top) / temperature), or 0 where x[i] < low. No x[i] >= low may exceed top.
void weigh(const float* x, int64_t n, double top, double temperature, float low, double* weights);

double sum(const double* weights, int64_t n);

// What typical sampling ranks by: the distance of a logit's information, log_total - (x - top), from the entropy.
struct Typical {
    double top, log_total, entropy;
    double distance(float x) const {
        const double d = log_total - (static_cast<double>(x) - top) - entropy;
        return d < 0.0 ? -d : d;
    }
};
// weights[i] = 0 where the distance of x[i] exceeds `most`. True if one of them is just as far.
bool drop_far(const float* x, int64_t n, const Typical& typical, double most, double* weights);

// places[i] = min(last, (top - x[i]) * per_unit), rounded down: never greater for a greater logit.
void places(const float* x, int64_t n, float top, float per_unit, int32_t last, int32_t* places);

// For logits no further below the top than last / per_unit, shares[i] = e^(middle of its place - (top - x[i])), so that
// a sum of shares, times e^-middle, is a sum of weights at temperature 1. What lies further below gets any number.
void shares(const float* x, int64_t n, float top, float per_unit, const int32_t* places, double* shares);

// Finds the i with first <= places[i] <= last, in their order; returns how many. `found` needs room for n.
int64_t between(const int32_t* places, int64_t n, int32_t first, int32_t last, int32_t* found);

}  // namespace clarion::passes
