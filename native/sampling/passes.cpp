#include "sampling/passes.h"

#include <bit>
#include <cfloat>
#include <limits>

// Compiled several times; the loader takes what the processor has. It asks before the thread sanitizer is ready.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && \
    (defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 11)
#define CLARION_CLONES [[gnu::target_clones("default", "avx2", "avx512f")]]
#else
#define CLARION_CLONES
#endif

namespace clarion::passes {

namespace {

constexpr int lanes = 16;
constexpr int sums = 8;
constexpr double log2_e = 0x1.71547652b82fep0;

// 2^y for y <= 0: y = n + f with |f| <= 1/2, and the Taylor series of 2^f up to (f ln 2)^11 / 11!, whose remainder is
// below 7e-15. What would be below 2^-1022 is 0.
inline double exp2_negative(double y) {
    constexpr double shift = 0x1.8p52;  // adding it rounds to an integer and leaves that in the low bits
    const double clamped = y > -1022.0 ? y : -1022.0;
    const double shifted = clamped + shift;
    const double f = clamped - (shifted - shift);
    double p = 4.4455382718708116e-10;
    p = p * f + 7.0549116208011234e-09;
    p = p * f + 1.0178086009239699e-07;
    p = p * f + 1.3215486790144309e-06;
    p = p * f + 1.5252733804059840e-05;
    p = p * f + 1.5403530393381609e-04;
    p = p * f + 1.3333558146428443e-03;
    p = p * f + 9.6181291076284772e-03;
    p = p * f + 5.5504108664821580e-02;
    p = p * f + 2.4022650695910071e-01;
    p = p * f + 6.9314718055994531e-01;
    p = p * f + 1.0;
    const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);
    return y > -1022.0 ? p * power : 0.0;
}

// e^r for |r| <= 0.052: the Taylor series up to r^7 / 7!, whose remainder is below 2e-15.
inline double exp_small(double r) {
    double p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    return p * r + 1.0;
}

}  // namespace

CLARION_CLONES Extremes extremes(const float* x, int64_t n) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    float greatest[lanes], least[lanes];
    int32_t bad[lanes] = {};
    for (int l = 0; l < lanes; ++l) greatest[l] = -infinity, least[l] = infinity;
    const auto look = [&](int64_t l, float v) {
        const float finite = v >= -FLT_MAX ? v : infinity;
        greatest[l] = v > greatest[l] ? v : greatest[l];
        least[l] = finite < least[l] ? finite : least[l];
        bad[l] |= v <= FLT_MAX ? 0 : 1;  // NaN fails every comparison
    };
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) look(l, x[i + l]);
    for (; i < n; ++i) look(i % lanes, x[i]);
    Extremes result{-infinity, infinity, true};
    for (int l = 0; l < lanes; ++l) {
        result.greatest = greatest[l] > result.greatest ? greatest[l] : result.greatest;
        result.least = least[l] < result.least ? least[l] : result.least;
        result.numbers &= bad[l] == 0;
    }
    return result;
}

double exp_negative(double x) { return exp2_negative(x * log2_e); }

CLARION_CLONES void weigh(const float* x, int64_t n, double top, double temperature, float low,
                          double* weights) {
    const double per_unit = log2_e / temperature;
    const double least = low;
    for (int64_t i = 0; i < n; ++i) {
        const double v = x[i], weight = exp2_negative((v - top) * per_unit);
        weights[i] = v >= least ? weight : 0.0;
    }
}

CLARION_CLONES double sum(const double* weights, int64_t n) {
    double part[sums] = {};
    int64_t i = 0;
    for (; i + sums <= n; i += sums)
        for (int l = 0; l < sums; ++l) part[l] += weights[i + l];
    for (; i < n; ++i) part[i % sums] += weights[i];
    double total = 0.0;
    for (const double p : part) total += p;
    return total;
}

CLARION_CLONES bool drop_far(const float* x, int64_t n, const Typical& typical, double most,
                             double* weights) {
    int64_t ties = 0;
    for (int64_t i = 0; i < n; ++i) {
        const double distance = typical.distance(x[i]);
        weights[i] = distance <= most ? weights[i] : 0.0;
        ties += distance == most ? 1 : 0;
    }
    return ties > 0;
}

CLARION_CLONES void places(const float* x, int64_t n, float top, float per_unit, int32_t last,
                           int32_t* places) {
    const auto end = static_cast<float>(last);
    for (int64_t i = 0; i < n; ++i) {
        const float place = (top - x[i]) * per_unit;
        places[i] = static_cast<int32_t>(place < end ? place : end);
    }
}

CLARION_CLONES void shares(const float* x, int64_t n, float top, float per_unit, const int32_t* places,
                           double* shares) {
    const double zero = top, width = 1.0 / static_cast<double>(per_unit);
    for (int64_t i = 0; i < n; ++i) {
        const double middle = (static_cast<double>(places[i]) + 0.5) * width;
        shares[i] = exp_small(middle - (zero - static_cast<double>(x[i])));
    }
}

CLARION_CLONES int64_t between(const int32_t* places, int64_t n, int32_t first, int32_t last,
                               int32_t* found) {
    constexpr int64_t group = 32;
    const auto span = static_cast<uint32_t>(last - first);
    const auto within = [&](int64_t i) { return static_cast<uint32_t>(places[i] - first) <= span ? 1 : 0; };
    int64_t m = 0;
    for (int64_t begin = 0; begin < n; begin += group) {
        const int64_t end = begin + group < n ? begin + group : n;
        int32_t any = 0;
        for (int64_t i = begin; i < end; ++i) any |= within(i);
        if (any == 0) continue;
        for (int64_t i = begin; i < end; ++i) {
            found[m] = static_cast<int32_t>(i);
            m += within(i);
        }
    }
    return m;
}

}  // namespace clarion::passes
