// The formats with one scale and few levels: TQ1_0 and TQ2_0 (-1, 0, 1), Q1_0 (-1, 1), Q2_0 (-1, 0, 1, 2).
//
// Their blocks have 64 to 256 weights, so elements stand in the lanes here, and sums cross them once a block.
#include "quantize/block_256.h"
#include "quantize/quantizers.h"
#include "quantize/scale_fit.h"

namespace clarion::quantize {

namespace {

// Always in the same order, whatever the processor: halves, quarters, eighths of the lanes.
CLARION_LANES float sum_of_lanes(F a) {
    alignas(64) float v[lanes];
    store(v, a);
    Four q[4];
    for (int i = 0; i < 4; ++i) std::memcpy(&q[i], v + 4 * i, sizeof q[i]);
    const Four sum = (q[0] + q[2]) + (q[1] + q[3]);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// Magnitudes of n weights and their importance: sums over those above a threshold.
template <int n>
struct Magnitudes {
    F x[n / lanes], w[n / lanes];

    Magnitudes(const Run& run, int64_t at, bool alike = false) {
        const float* importance =
            run.importance == nullptr || alike ? nullptr : run.importance + (run.column + at) % run.cols;
        for (int i = 0; i < n / lanes; ++i) {
            x[i] = abs(load(run.x + at + lanes * i));
            w[i] = importance == nullptr ? all(1.0f) : load(importance + lanes * i);
        }
    }
    void above(float threshold, float& wx, float& weight) const {
        F sum = all(0.0f), sum_w = all(0.0f);
        for (int i = 0; i < n / lanes; ++i) {
            const F counted = select(x[i] > all(threshold), w[i], all(0.0f));
            sum = sum + counted * x[i];
            sum_w = sum_w + counted;
        }
        wx = sum_of_lanes(sum);
        weight = sum_of_lanes(sum_w);
    }
    // What a scale of -1, 0 and 1 leaves.
    float error(float scale) const {
        F sum = all(0.0f);
        for (int i = 0; i < n / lanes; ++i)
            sum = sum + w[i] * square(x[i] - select(x[i] > all(0.5f * scale), all(scale), all(0.0f)));
        return sum_of_lanes(sum);
    }
};

// The scale of -1, 0 and 1 with the least error: weights above half of it count. Thresholds around the mean
// magnitude, then the one that the best of them implies.
float ternary_scale(const Magnitudes<256>& block) {
    float wx, weight, best = 0.0f, best_gain = 0.0f;
    const auto attempt = [&](float threshold) {
        block.above(threshold, wx, weight);
        const float scale = weight > 0 ? wx / weight : 0.0f, gain = scale * wx;
        if (!(gain > best_gain)) return false;
        best_gain = gain;
        best = scale;
        return true;
    };
    block.above(-1.0f, wx, weight);
    const float mean = wx / weight;
    for (const float t : {0.6f, 0.9f}) attempt(t * mean);
    for (int k = 0; k < 3 && attempt(0.5f * best); ++k) {
    }
    return best;
}

// 256 ternary digits 0, 1, 2, and the scale.
Half ternary_digits(const Run& run, int64_t block, uint8_t* digit) {
    const Magnitudes<256> magnitudes(run, 256 * block);
    Half d = to_half(ternary_scale(magnitudes));
    if (run.importance != nullptr) {
        float least = magnitudes.error(d.value);
        const float scale = ternary_scale(Magnitudes<256>(run, 256 * block, true));
        for (const Half other : {to_half(scale), to_half(0.0f)})
            if (const float error = magnitudes.error(other.value); error < least) {
                least = error;
                d = other;
            }
    }
    const float* x = run.x + 256 * block;
    const float half = 0.5f * d.value;
    for (int j = 0; j < 256; ++j) digit[j] = static_cast<uint8_t>(1 + (x[j] > half) - (x[j] < -half));
    return d;
}

// n bytes of `each` digits: digit k of byte i is column n k + i. A byte is the digits' fraction of 3^5, rounded up.
void pack_digits(const uint8_t* digit, int n, int each, uint8_t* out) {
    for (int i = 0; i < n; ++i) {
        int value = 0;
        for (int k = 0; k < 5; ++k) value = 3 * value + (k < each ? digit[n * k + i] : 0);
        out[i] = static_cast<uint8_t>((value * 256 + 242) / 243);
    }
}

}  // namespace

void quantize_tq1_0(const Run& run) {
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        uint8_t digit[256], *out = run.out + 54 * b;
        const Half d = ternary_digits(run, b, digit);
        pack_digits(digit, 32, 5, out);
        pack_digits(digit + 160, 16, 5, out + 32);
        pack_digits(digit + 240, 4, 4, out + 48);
        put_u16(out + 52, d.bits);
    }
}

void quantize_tq2_0(const Run& run) {
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        uint8_t digit[256], *out = run.out + 66 * b;
        const Half d = ternary_digits(run, b, digit);
        pack_pairs(digit, out);
        put_u16(out + 64, d.bits);
    }
}

// The best scale of signs is the mean magnitude.
void quantize_q1_0(const Run& run) {
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        const float* x = run.x + 128 * b;
        uint8_t* out = run.out + 18 * b;
        float wx, weight;
        Magnitudes<128>(run, 128 * b).above(-1.0f, wx, weight);
        put_u16(out, to_half(wx / weight).bits);
        for (int i = 0; i < 16; ++i) {
            uint32_t bits = 0;
            for (int j = 0; j < 8; ++j) bits |= static_cast<uint32_t>(x[8 * i + j] >= 0.0f) << j;
            out[2 + i] = static_cast<uint8_t>(bits);
        }
    }
}

void quantize_q2_0(const Run& run) {
    using Levels = Integers<-1, 2>;
    Tile<64> tile;
    for (int64_t first = 0; first < run.n_blocks; first += lanes) {
        const int count = static_cast<int>(std::min<int64_t>(lanes, run.n_blocks - first));
        tile.load(run, 64 * first, count);
        const auto fit = [](const Tile<64>& t) {
            return rounded_to_half(fit_scale<Levels>(t, 3, 0.65f, 1.1f, 2).scale);
        };
        const F d = run.importance == nullptr ? fit(tile)
                                              : fit_weighted<Levels>(tile, fit(tile.alike()), 3, 0.65f, 1.1f);
        const F to_level = inverse(d);
        Codes<64> codes;
        codes.fill([&](int j) { return Levels::code(tile.x[j] * to_level); });
        alignas(64) float d_of[lanes];
        store(d_of, d);
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + 18 * (first + b);
            put_u16(out, to_half(d_of[b]).bits);
            for (int i = 0; i < 16; ++i) {
                const uint8_t* code = codes.of[b] + 4 * i;
                out[2 + i] = static_cast<uint8_t>(code[0] | code[1] << 2 | code[2] << 4 | code[3] << 6);
            }
        }
    }
}

}  // namespace clarion::quantize
