// The functions of native/simd/ against their definitions, one lane at a time.
#include "simd/simd.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(),
                nan = std::numeric_limits<float>::quiet_NaN();

struct Floats {
    float v[16];
    explicit Floats(simd::f32x16 x) { simd::store(v, x); }
};
struct Integers {
    int32_t v[16];
    explicit Integers(simd::i32x16 x) { simd::store(v, x); }
};
struct Bytes {
    uint8_t v[64];
    explicit Bytes(simd::u8x64 x) { simd::store_bytes(v, x); }
};

bool same(float a, float b) {
    return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// Each op(x, y) in the lanes must be scalar(x, y).
template <typename Op, typename Scalar>
void check_floats(const float* x, const float* y, Op op, Scalar scalar) {
    const Floats z(op(simd::load(x), simd::load(y)));
    for (int i = 0; i < 16; ++i) check(same(z.v[i], scalar(x[i], y[i])));
}
template <typename Op, typename Scalar>
void check_integers(const int32_t* x, const int32_t* y, Op op, Scalar scalar) {
    const Integers z(op(simd::load(x), simd::load(y)));
    for (int i = 0; i < 16; ++i)
        check(z.v[i] ==
              static_cast<int32_t>(scalar(static_cast<uint32_t>(x[i]), static_cast<uint32_t>(y[i]))));
}
template <typename Op, typename Scalar>
void check_bytes(const uint8_t* x, const uint8_t* y, Op op, Scalar scalar) {
    const Bytes z(op(simd::load_bytes(x), simd::load_bytes(y)));
    for (int i = 0; i < 64; ++i) check(z.v[i] == static_cast<uint8_t>(scalar(x[i], y[i])));
}

void test_floats() {
    // No zeros of both signs: which of them is the larger differs between processors.
    const float x[16] = {1, -2, 3.5f, infinity, nan, 0, -0.0f, 7, 1e-40f, 2, nan, 1e30f, 5, -infinity, 3, -8};
    const float y[16] = {2, -3, 3.5f, 1, 2, 0, -0.0f, nan, 1e-41f, 3, nan, 1e30f, -5, infinity, 3, 8};
    check_floats(
        x, y, [](auto a, auto b) { return simd::add(a, b); }, [](float a, float b) { return a + b; });
    check_floats(
        x, y, [](auto a, auto b) { return simd::sub(a, b); }, [](float a, float b) { return a - b; });
    check_floats(
        x, y, [](auto a, auto b) { return simd::mul(a, b); }, [](float a, float b) { return a * b; });
    check_floats(
        x, y, [](auto a, auto b) { return simd::div(a, b); }, [](float a, float b) { return a / b; });
    check_floats(
        x, y, [](auto a, auto b) { return simd::max(a, b); }, [](float a, float b) { return a > b ? a : b; });
    check_floats(
        x, y, [](auto a, auto b) { return simd::min(a, b); }, [](float a, float b) { return a < b ? a : b; });
    check_floats(
        x, y, [](auto a, auto) { return simd::abs(a); }, [](float a, float) { return std::fabs(a); });

    float z[16], sum[16];
    Random random;
    for (int i = 0; i < 16; ++i) sum[i] = z[i] = random.next();
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) sum[i] += sum[i + w];
    check(same(simd::reduce_add(simd::load(z)), sum[0]));
    for (int i = 0; i < 16; ++i) {
        z[i] = 2;
        check(same(simd::reduce_max(simd::load(z)), 2));
        z[i] = 0.5f;
    }
    const Floats fused(simd::fma(simd::load(x), simd::set1(2.0f), simd::set1(0.5f)));
    for (int i = 0; i < 16; ++i) check(same(fused.v[i], x[i] * 2 + 0.5f));
    for (int n = 0; n <= 16; ++n) {
        std::vector<float> exact(x, x + n);  // the sanitizers see what goes beyond
        exact.reserve(1);                    // not a null pointer
        const Floats first(simd::load_first(exact.data(), n));
        for (int i = 0; i < 16; ++i) check(same(first.v[i], i < n ? x[i] : 0));
        simd::store_first(exact.data(), simd::load(y), n);
        for (int i = 0; i < n; ++i) check(same(exact[static_cast<size_t>(i)], y[i]));
    }
    const float to_integer[16] = {0.5f,        1.5f,           2.5f,       -0.5f, -1.5f,    -2.5f,
                                  0.49999997f, 2147483520.0f,  3e9f,       -3e9f, infinity, -infinity,
                                  nan,         -2147483648.0f, 8388609.0f, -0.0f};
    const int32_t expected[16] = {0,         2,          2,         0,         -2,        -2,
                                  0,         2147483520, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN,
                                  INT32_MIN, INT32_MIN,  8388609,   0};
    const Integers rounded(simd::to_i32(simd::load(to_integer)));
    for (int i = 0; i < 16; ++i) check(rounded.v[i] == expected[i]);
    for (float e = -110; e < 95; e += 0.37f) {
        const Floats power(simd::exp(simd::set1(e)));
        const double exact = std::exp(static_cast<double>(e));
        if (e > -87 && e < 88.7f) check(std::fabs(power.v[3] - exact) <= 3e-7 * exact);
        if (e < -104) check(power.v[5] == 0);
        if (e > 88.8f) check(power.v[7] == infinity);
    }
    check(std::isnan(Floats(simd::exp(simd::set1(nan))).v[0]));
}

// The error of y where x is the exact value, relative to it.
void check_near(float y, double x, double tolerance) { check(std::fabs(y - x) <= tolerance * std::fabs(x)); }

// The functions that are made of exp, over the range where their results are normal numbers.
void test_functions() {
    for (float size = 1e-30f; size < 80; size *= 1.003f)
        for (const float x : {size, -size}) {
            const double d = x;
            const simd::f32x16 v = simd::set1(x);
            check_near(Floats(simd::sigmoid(v)).v[1], 1 / (1 + std::exp(-d)), 3e-7);
            check_near(Floats(simd::tanh(v)).v[2], std::tanh(d), 4e-7);
            check_near(Floats(simd::softplus(v)).v[3], std::fmax(d, 0) + std::log1p(std::exp(-std::fabs(d))),
                       5e-7);
            const double below = std::erfc(-d / std::sqrt(2.0)) / 2;
            const double logistic = 1 / (1 + std::exp(-1.5957691216057308 * (d + 0.044715 * d * d * d)));
            const float normal = Floats(simd::gelu<simd::normal_tail>(v)).v[4],
                        other = Floats(simd::gelu<simd::tanh_tail>(v)).v[5];
            check(std::fabs(normal - d * below) <= 1.5e-7 * size);
            check(std::fabs(other - d * logistic) <= 1.5e-7 * size);
            // A long way below zero the result is small, but keeps its digits.
            if (x > -5) check_near(normal, d * below, 2e-6);
        }
}

void test_integers() {
    Random random;
    int32_t x[16], y[16];
    for (int i = 0; i < 16; ++i) {
        x[i] = static_cast<int32_t>(random.bits());
        y[i] = static_cast<int32_t>(random.bits());
    }
    check_integers(
        x, y, [](auto a, auto b) { return simd::add(a, b); }, [](auto a, auto b) { return a + b; });
    check_integers(
        x, y, [](auto a, auto b) { return simd::sub(a, b); }, [](auto a, auto b) { return a - b; });
    check_integers(
        x, y, [](auto a, auto b) { return simd::bit_and(a, b); }, [](auto a, auto b) { return a & b; });
    check_integers(
        x, y, [](auto a, auto b) { return simd::bit_or(a, b); }, [](auto a, auto b) { return a | b; });
    check_integers(
        x, y, [](auto a, auto) { return simd::shift_left<5>(a); }, [](auto a, auto) { return a << 5; });
    check_integers(x, y, [](auto a, auto) { return simd::shift_left<0>(a); }, [](auto a, auto) { return a; });
    check_integers(
        x, y, [](auto a, auto) { return simd::shift_right<5>(a); }, [](auto a, auto) { return a >> 5; });
    check_integers(
        x, y, [](auto a, auto) { return simd::shift_right<0>(a); }, [](auto a, auto) { return a; });
    check_integers(
        x, y, [](auto a, auto) { return simd::shift_right_signed<24>(a); },
        [](auto a, auto) { return static_cast<int32_t>(a) >> 24; });
    const Floats converted(simd::to_f32(simd::load(x)));
    int8_t low[16];
    simd::store_i8(low, simd::load(x));
    uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = static_cast<uint8_t>(x[i]);
    const Integers wide(simd::load_u8(bytes));
    for (int i = 0; i < 16; ++i) check(wide.v[i] == bytes[i]);
    for (int i = 0; i < 16; ++i) {
        check(converted.v[i] == static_cast<float>(x[i]));
        check(low[i] == static_cast<int8_t>(x[i]));
    }
}

// All 65536 halves; rounding of what lies between two of them.
void test_halves() {
    for (uint32_t first = 0; first < 65536; first += 16) {
        uint16_t half[16], back[16];
        for (uint32_t i = 0; i < 16; ++i) half[i] = static_cast<uint16_t>(first + i);
        const Floats wide(simd::load_f16(half)), brain(simd::load_bf16(half));
        simd::store_f16(back, simd::load(wide.v));
        for (int i = 0; i < 16; ++i) {
            const int exponent = half[i] >> 10 & 31, mantissa = half[i] & 1023;
            float x = exponent == 0    ? std::ldexp(static_cast<float>(mantissa), -24)
                      : exponent == 31 ? (mantissa ? nan : infinity)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
            if (half[i] & 0x8000) x = -x;
            check(same(wide.v[i], x) && same(simd::f16_to_f32(half[i]), x));
            check(std::isnan(x) ? (back[i] & 0x7fff) > 0x7c00 : back[i] == half[i]);
            const float b = std::bit_cast<float>(static_cast<uint32_t>(half[i]) << 16);
            check(same(brain.v[i], b) && same(simd::bf16_to_f32(half[i]), b));
            if (exponent == 31) continue;
            const float next = exponent == 30 && mantissa == 1023
                                   ? std::copysign(65536.0f, x)
                                   : simd::f16_to_f32(static_cast<uint16_t>(half[i] + 1));
            const float middle = (x + next) / 2;
            check(simd::f32_to_f16(middle) == half[i] + (half[i] & 1));
            uint16_t rounded[16];
            simd::store_f16(rounded, simd::set1(middle));
            check(rounded[i] == half[i] + (half[i] & 1));
            check(simd::f32_to_f16(std::nextafter(middle, x)) == half[i]);
            check(simd::f32_to_f16(std::nextafter(middle, next)) == half[i] + 1);
        }
    }
}

void test_bytes() {
    Random random;
    uint8_t x[64], y[64];
    for (int i = 0; i < 64; ++i) {
        x[i] = static_cast<uint8_t>(random.bits() >> 9);
        y[i] = static_cast<uint8_t>(random.bits() >> 9);
    }
    check_bytes(x, y, [](auto a, auto b) { return simd::bit_and(a, b); }, [](int a, int b) { return a & b; });
    check_bytes(x, y, [](auto a, auto b) { return simd::bit_or(a, b); }, [](int a, int b) { return a | b; });
    check_bytes(x, y, [](auto a, auto b) { return simd::bit_xor(a, b); }, [](int a, int b) { return a ^ b; });
    check_bytes(
        x, y, [](auto a, auto) { return simd::shift_left_u8<3>(a); }, [](int a, int) { return a << 3; });
    check_bytes(x, y, [](auto a, auto) { return simd::shift_left_u8<0>(a); }, [](int a, int) { return a; });
    check_bytes(
        x, y, [](auto a, auto) { return simd::shift_right_u8<5>(a); }, [](int a, int) { return a >> 5; });
    check_bytes(x, y, [](auto, auto) { return simd::set1_u8(200); }, [](int, int) { return 200; });
    const Integers words(simd::as_i32(simd::load_bytes(x)));
    const Bytes again(simd::as_u8(simd::as_i32(simd::load_bytes(x))));
    const Floats low(simd::f16_low(simd::load_bytes(x))), high(simd::f16_high(simd::load_bytes(x)));
    for (int r = 0; r < 16; ++r) {
        uint32_t word = 0;
        for (int j = 3; j >= 0; --j) word = word << 8 | x[4 * r + j];
        check(words.v[r] == static_cast<int32_t>(word) && again.v[4 * r + 1] == x[4 * r + 1]);
        check(same(low.v[r], simd::f16_to_f32(static_cast<uint16_t>(word))));
        check(same(high.v[r], simd::f16_to_f32(static_cast<uint16_t>(word >> 16))));
    }
    for (const int64_t stride : {16, 23, 0}) {
        std::vector<uint8_t> rows(static_cast<size_t>(15 * stride + 3 + 16));
        for (uint8_t& e : rows) e = static_cast<uint8_t>(random.bits() >> 9);
        simd::u8x64 out[4];
        simd::transpose_16({rows.data(), stride}, 3, out);
        for (int c = 0; c < 4; ++c) {
            const Bytes column(out[c]);
            for (int r = 0; r < 16; ++r)
                for (int j = 0; j < 4; ++j)
                    check(column.v[4 * r + j] == rows[static_cast<size_t>(r * stride + 3 + 4 * c + j)]);
        }
    }
}

// Entries of codebooks, and flags that change their bytes.
void test_look_up() {
    Random random;
    constexpr uint32_t n = 2048;
    std::vector<uint64_t> eights(n);
    std::vector<uint32_t> fours(n);
    for (uint32_t i = 0; i < n; ++i) {
        fours[i] = random.bits();
        eights[i] = static_cast<uint64_t>(random.bits()) << 32 | random.bits();
    }
    for (int round = 0; round < 20; ++round) {
        uint32_t index[16];
        int32_t flags[16];
        for (int r = 0; r < 16; ++r) {
            index[r] = round == 0 ? (r % 2 == 0 ? 0 : n - 1) : random.bits() % n;
            flags[r] = static_cast<int32_t>(random.bits());
        }
        simd::u8x64 w0, w1;
        uint32_t pairs[16];
        for (int r = 0; r < 16; ++r) pairs[r] = index[r] | index[15 - r] << 16;
        simd::look_up_pairs(fours.data(), pairs, w0, w1);
        const Bytes low(w0), high(w1);
        const int half = round % 2;
        if (half != 0)
            for (uint32_t& pair : pairs) pair = pair << 16 | pair >> 16;
        simd::look_up_rows(eights.data(), pairs, half, w0, w1);
        const Bytes first(w0), last(w1);
        const auto flip = static_cast<uint8_t>(round % 2 == 0 ? 0xff : 0),
                   more = static_cast<uint8_t>(round * 37);
        simd::change_flagged(w0, w1, simd::load(flags), flip, more);
        const Bytes changed[2] = {Bytes(w0), Bytes(w1)};
        for (int r = 0; r < 16; ++r) {
            uint8_t entry[16];
            std::memcpy(entry, &eights[index[r]], 8);
            std::memcpy(entry + 8, &fours[index[r]], 4);
            std::memcpy(entry + 12, &fours[index[15 - r]], 4);
            for (int j = 0; j < 4; ++j) {
                check(first.v[4 * r + j] == entry[j] && last.v[4 * r + j] == entry[4 + j]);
                check(low.v[4 * r + j] == entry[8 + j] && high.v[4 * r + j] == entry[12 + j]);
            }
            for (int j = 0; j < 8; ++j) {
                const bool set = (flags[r] >> j & 1) != 0;
                check(changed[j / 4].v[4 * r + j % 4] ==
                      static_cast<uint8_t>(set ? (entry[j] ^ flip) + more : entry[j]));
            }
        }
    }
}

// The largest weights and activations: sums must not overflow before they are 32 bits wide.
template <typename Accumulator>
void test_largest(int largest_weight, int32_t largest_activation) {
    for (const int32_t a : {largest_activation, -largest_activation}) {
        for (const int w : {largest_weight, largest_weight / 2, 1, 0}) {
            uint8_t quads[2 * Accumulator::quad_bytes];
            const int32_t activations[4] = {a, a, -a, a};
            for (int q = 0; q < 2; ++q) {
                uint8_t* quad = quads + q * Accumulator::quad_bytes;
                if (Accumulator::quad_bytes == 8) {
                    simd::encode_quad(quad, activations);
                } else {
                    for (int j = 0; j < 4; ++j) quad[j] = static_cast<uint8_t>(activations[j]);
                }
            }
            const int32_t bias = Accumulator::bias;
            auto acc = Accumulator::start(4 * 4 * a * bias +
                                          7);  // the sum of all eight quads' activations is 4 * 4a
            for (int i = 0; i < 4; ++i)
                acc.dot2(simd::set1_u8(static_cast<uint8_t>(w)), simd::set1_u8(static_cast<uint8_t>(w)),
                         quads);
            for (const int32_t sum : Integers(acc.total()).v) check(sum == 4 * 4 * a * w + 7);
        }
    }
}

}  // namespace

void test_simd() {
    test_floats();
    test_functions();
    test_integers();
    test_halves();
    test_bytes();
    test_look_up();
    test_largest<simd::fast_accumulator<false>>(63, 127);
    test_largest<simd::fast_accumulator<true>>(255, 127);
    test_largest<simd::high_accumulator>(255, simd::high_limit);
    test_largest<simd::high_accumulator>(255, 128);  // whose lower byte is -128, as that of its negative
    int32_t keep = 0;
    check(simd::multiply_burst(3, &keep) > 0);
}

}  // namespace clarion::tests
