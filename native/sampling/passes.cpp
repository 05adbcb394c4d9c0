#include "sampling/passes.h"

#include <bit>
#include <cfloat>
#include <cmath>
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
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr double log2_e = 0x1.71547652b82fep0;

// 2^y for -1021 <= y <= 0, and 0 for y = -1023: y = n + f with |f| <= 1/2. The polynomial equals 2^f at 0 and at the
// other zeros of the Chebyshev polynomial T9(2 f); elsewhere it is within 1.1e-12 of it, relatively. Even and odd
// powers are summed apart, so that half as many operations wait for each other.
inline double exp2_negative(double y) {
    constexpr double shift = 0x1.8p52;  // adding it rounds to an integer and leaves that in the low bits
    const double shifted = y + shift, f = y - (shifted - shift), f2 = f * f;
    double even = 1.3255224878668817e-06, odd = 1.5310079402249296e-05;
    even = even * f2 + 1.5403455852453838e-04;
    odd = odd * f2 + 1.3333450568000645e-03;
    even = even * f2 + 9.6181291594025580e-03;
    odd = odd * f2 + 5.5504109412059330e-02;
    even = even * f2 + 2.4022650695812990e-01;
    odd = odd * f2 + 6.9314718054593350e-01;
    even = even * f2 + 1.0;
    const double power = even + odd * f;
    return std::bit_cast<double>(std::bit_cast<uint64_t>(power) + (std::bit_cast<uint64_t>(shifted) << 52));
}

// The same in float, for -126 <= y <= 0 and y = -127. The polynomial is within 1.0e-7.
inline float exp2_negative(float y) {
    constexpr float shift = 0x1.8p23f;
    const float shifted = y + shift, f = y - (shifted - shift);
    float p = 1.3264731e-3f;
    p = p * f + 9.6715128e-3f;
    p = p * f + 5.5507337e-2f;
    p = p * f + 2.4022242e-1f;
    p = p * f + 6.9314698e-1f;
    p = p * f + 1.0f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23));
}

// e^r for |r| <= 0.026, within 1.7e-14: a polynomial that equals it at 0 and deviates least elsewhere.
inline double exp_small(double r) {
    const double r2 = r * r;
    double even = 0.04166797385538279, odd = 0.008333088897997725;
    even = even * r2 + 0.49999999972661036;
    odd = odd * r2 + 0.16666666697623111;
    even = even * r2 + 1.0;
    odd = odd * r2 + 0.9999999999999473;
    return even + odd * r;
}

template <typename Real>
inline void weigh_in(const float* x, int64_t n, float top, double temperature, float low, float high,
                     Real* weights) {
    constexpr Real nothing = sizeof(Real) == 8 ? -1023 : -127;
    const double per_unit = log2_e / temperature, deepest = top + (nothing + 2) / per_unit;
    auto least = static_cast<float>(deepest);
    if (least < deepest) least = std::nextafter(least, infinity);
    if (least < low) least = low;
    const auto zero = static_cast<Real>(top), scale = static_cast<Real>(per_unit);
    for (int64_t i = 0; i < n; ++i) {
        const Real y = (static_cast<Real>(x[i]) - zero) * scale;
        weights[i] = exp2_negative(x[i] >= least && x[i] <= high ? y : nothing);
    }
}

// Half the sum of lanes again and again: the same order whatever the vectors' width.
template <int n>
inline double folded(double (&part)[n]) {
    for (int half = n / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) part[l] += part[l + half];
    return part[0];
}

template <typename Real>
inline double sum_of(const Real* weights, int64_t n) {
    double part[sums] = {};
    int64_t i = 0;
    for (; i + sums <= n; i += sums)
        for (int l = 0; l < sums; ++l) part[l] += static_cast<double>(weights[i + l]);
    for (; i < n; ++i) part[i % sums] += static_cast<double>(weights[i]);
    return folded(part);
}

template <typename Real>
inline int64_t first_greatest_in(const Real* x, int64_t n) {
    constexpr Real most = std::numeric_limits<Real>::max();
    Real greatest[lanes], least[lanes];
    int32_t bad[lanes] = {};
    for (int l = 0; l < lanes; ++l) greatest[l] = -most, least[l] = most;
    const auto look = [&](int64_t l, Real v) {
        greatest[l] = v > greatest[l] ? v : greatest[l];
        least[l] = v < least[l] ? v : least[l];
        bad[l] |= v <= most ? 0 : 1;  // NaN fails every comparison
    };
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        for (int l = 0; l < lanes; ++l) look(l, x[i + l]);
    for (; i < n; ++i) look(i % lanes, x[i]);
    Real top = -most;
    for (int l = 0; l < lanes; ++l) {
        if (bad[l] != 0 || least[l] < -most) return -1;
        top = greatest[l] > top ? greatest[l] : top;
    }
    int64_t where = 0;
    for (; where + block <= n; where += block) {
        int32_t found = 0;
        for (int64_t j = 0; j < block; ++j) found |= x[where + j] == top ? 1 : 0;
        if (found != 0) break;
    }
    while (x[where] != top) ++where;
    return where;
}

}  // namespace

CLARION_CLONES Extremes extremes(const float* x, int64_t n) {
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

CLARION_CLONES void weigh(const float* x, int64_t n, float top, double temperature, float low, float high,
                          double* weights) {
    weigh_in(x, n, top, temperature, low, high, weights);
}

CLARION_CLONES void weigh(const float* x, int64_t n, float top, double temperature, float low, float high,
                          float* weights) {
    weigh_in(x, n, top, temperature, low, high, weights);
}

CLARION_CLONES double sum(const double* weights, int64_t n) { return sum_of(weights, n); }

CLARION_CLONES double sum(const float* weights, int64_t n) { return sum_of(weights, n); }

CLARION_CLONES void middles(double width, int32_t n, double* weights) {
    const double per_place = -width * log2_e;
    for (int32_t j = 0; j < n; ++j) weights[j] = exp2_negative(j * per_place);
}

CLARION_CLONES void places(const float* x, int64_t n, float top, float per_unit, int32_t last,
                           int32_t* places) {
    const auto end = static_cast<float>(last);
    for (int64_t i = 0; i < n; ++i) {
        const float place = (top - x[i]) * per_unit + 0.5f;
        places[i] = static_cast<int32_t>(place < end ? place : end);
    }
}

CLARION_CLONES void shares(const float* x, int64_t n, float top, float per_unit, const int32_t* places,
                           double* shares) {
    const double zero = top, width = 1.0 / static_cast<double>(per_unit);
    for (int64_t i = 0; i < n; ++i) {
        const double middle = static_cast<double>(places[i]) * width;
        shares[i] = exp_small(middle - (zero - static_cast<double>(x[i])));
    }
}

CLARION_CLONES void moments(const float* x, int64_t n, float top, float per_unit, const int32_t* places,
                            double* shares, double* moments) {
    const double zero = top, width = 1.0 / static_cast<double>(per_unit);
    for (int64_t i = 0; i < n; ++i) {
        const double middle = static_cast<double>(places[i]) * width,
                     below = zero - static_cast<double>(x[i]);
        shares[i] = exp_small(middle - below);
        moments[i] = shares[i] * below;
    }
}

CLARION_CLONES int64_t between(const float* x, int64_t n, Run one, Run other, int32_t* found) {
    constexpr int64_t group = 32;
    const auto within = [=](int64_t i) {
        const float v = x[i];
        return ((v >= one.low) & (v <= one.high)) | ((v >= other.low) & (v <= other.high));
    };
    int64_t m = 0, begin = 0;
    for (; begin + group <= n; begin += group) {
        uint32_t bits = 0;
        for (int i = 0; i < group; ++i) bits |= within(begin + i) ? uint32_t{1} << i : 0;
        for (; bits != 0; bits &= bits - 1) found[m++] = static_cast<int32_t>(begin + std::countr_zero(bits));
    }
    for (; begin < n; ++begin) {
        found[m] = static_cast<int32_t>(begin);
        m += within(begin) ? 1 : 0;
    }
    return m;
}

CLARION_CLONES int64_t count(const float* x, int64_t n, Run run) {
    int32_t within = 0;
    for (int64_t i = 0; i < n; ++i) within += x[i] >= run.low && x[i] <= run.high ? 1 : 0;
    return within;
}

CLARION_CLONES int64_t first_greatest(const float* x, int64_t n) { return first_greatest_in(x, n); }

CLARION_CLONES int64_t first_greatest(const double* x, int64_t n) { return first_greatest_in(x, n); }

CLARION_CLONES Apart compare(const double* x, double x_top, const double* y, double y_top, int64_t n) {
    constexpr double nothing = -1023.0, deepest = (nothing + 2.0) / log2_e;
    double x_part[sums] = {}, y_part[sums] = {}, apart[sums] = {};
    const auto look = [&](int64_t l, double u, double v) {
        const double of_x = exp2_negative(u >= deepest ? u * log2_e : nothing);
        const double of_y = exp2_negative(v >= deepest ? v * log2_e : nothing);
        x_part[l] += of_x, y_part[l] += of_y, apart[l] += of_y * (v - u);
    };
    int64_t i = 0;
    for (; i + sums <= n; i += sums)
        for (int l = 0; l < sums; ++l) look(l, x[i + l] - x_top, y[i + l] - y_top);
    for (; i < n; ++i) look(i % sums, x[i] - x_top, y[i] - y_top);
    return {folded(x_part), folded(y_part), folded(apart)};
}

}  // namespace clarion::passes
