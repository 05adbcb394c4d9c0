// What touches every logit, a block at a time. Basic operations in a fixed order: the same bits on every processor.
#pragma once

#include <cmath>
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

// weights[i] = e^((x[i] - top) / temperature) where low <= x[i] <= high, else 0; what would be below 2^-1020 may be 0,
// too. Of the x[i] <= high none may exceed the top.
void weigh(const float* x, int64_t n, float top, double temperature, float low, float high, double* weights);

// The same in float: what would be below 2^-124 may be 0; other weights of e^-d are within estimate_error(d).
void weigh(const float* x, int64_t n, float top, double temperature, float low, float high, float* weights);

// Relatively: what e is raised to is rounded three times, each time by at most 2^-24 of it; the polynomial and its own
// rounding add at most 3.3 units of 2^-24, as trying its arguments shows.
constexpr double estimate_error(double depth) { return 0x1p-24 * (3.3 + 3.1 * depth); }

double sum(const double* weights, int64_t n);
double sum(const float* weights, int64_t n);

// What typical sampling ranks by: the distance of a logit's information, log_total - (x - top), from the entropy.
struct Typical {
    double top, log_total, entropy;
    double above(float x) const { return entropy - (log_total - (static_cast<double>(x) - top)); }
    double distance(float x) const { return std::fabs(above(x)); }
};

constexpr float widest_place = 0.052f;  // of logit, up to which shares and moments are exact
// places[i] = min(last, (top - x[i]) * per_unit), rounded to the nearest: never greater for a greater logit.
void places(const float* x, int64_t n, float top, float per_unit, int32_t last, int32_t* places);

// For logits no further below the top than last / per_unit, shares[i] = e^(middle of its place - (top - x[i])), so that
// a sum of shares, times e^-middle, is a sum of weights at temperature 1. What lies further below gets any number.
void shares(const float* x, int64_t n, float top, float per_unit, const int32_t* places, double* shares);

// Besides, the shares times top - x[i].
void moments(const float* x, int64_t n, float top, float per_unit, const int32_t* places, double* shares,
             double* moments);

// weights[j] = e^-(middle of place j), of places of this width.
void middles(double width, int32_t n, double* weights);

// Logits from low to high.
struct Run {
    float low, high;
};

// Finds the i whose x[i] is in one run or the other, in their order; returns how many. `found` needs room for n.
int64_t between(const float* x, int64_t n, Run one, Run other, int32_t* found);

// How many x[i] are in the run.
int64_t count(const float* x, int64_t n, Run run);

// The i with the greatest of numbers, the first of equal ones; -1 if one is NaN or infinite.
int64_t first_greatest(const float* x, int64_t n);
int64_t first_greatest(const double* x, int64_t n);

// Two rows of numbers, x of a model and y of its reference, of which none is greater than its top.
struct Apart {
    double x_sum = 0.0, y_sum = 0.0;  // of e^(x - top) and of e^(y - top)
    double apart = 0.0;               // of the latter times (y - its top) - (x - its top)
};
Apart compare(const double* x, double x_top, const double* y, double y_top, int64_t n);

}  // namespace clarion::passes
