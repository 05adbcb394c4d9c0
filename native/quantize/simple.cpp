// F16, BF16, and the formats whose blocks have one scale of their own: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q8_K.
//
// Without importance the scale of Q4_0 .. Q8_1 follows from the block's extremes alone, by the rule that every
// writer of GGUF uses: files are the same, whoever wrote them.
#include <bit>

#include "quantize/affine_fit.h"
#include "quantize/quantizers.h"
#include "quantize/scale_fit.h"

namespace clarion::quantize {

namespace {

// Runs of blocks of 32, sixteen at a time: body(tile, first block, blocks).
template <typename Body>
void each_tile(const Run& run, Body body) {
    Tile<32> tile;
    for (int64_t first = 0; first < run.n_blocks; first += lanes) {
        const int count = static_cast<int>(std::min<int64_t>(lanes, run.n_blocks - first));
        tile.load(run, 32 * first, count);
        body(tile, first, count);
    }
}

struct Halves {
    uint16_t bits[lanes];
    explicit Halves(F x) {
        alignas(64) float value[lanes];
        store(value, x);
        for (int l = 0; l < lanes; ++l) bits[l] = to_half(value[l]).bits;
    }
};

// The fifth bits of 32 codes, then the low four.
void pack_fives(const uint8_t* code, uint8_t* out) {
    uint32_t high = 0;
    for (int i = 0; i < 32; ++i) high |= static_cast<uint32_t>(code[i] >> 4) << i;
    put_u16(out, high);
    put_u16(out + 2, high >> 16);
    pack_nibbles(code, 16, out + 4);
}

void pack(const uint8_t* code, int bits, uint8_t* out) {
    if (bits == 4)
        pack_nibbles(code, 16, out);
    else
        pack_fives(code, out);
}

// Scales and codes of weights that count differently; `plain` are those of weights that count alike. They are
// functions of their own, for else the others need more registers.
template <typename Levels>
[[gnu::noinline]] F weighted_codes(const Tile<32>& tile, F plain, int steps, float from, float to,
                                   Codes<32>& codes) {
    const F d = fit_weighted<Levels>(tile, plain, steps, from, to), to_code = inverse(d);
    codes.fill([&](int j) { return Levels::code(tile.x[j] * to_code); });
    return d;
}
[[gnu::noinline]] Affine weighted_codes(const Tile<32>& tile, Affine plain, float most, Codes<32>& codes) {
    const auto stored = [](F x) { return rounded_to_half(x); };
    Best best(Affine{all(0.0f), all(0.0f)}, [&](const Affine& way) { return affine_error(tile, way, most); });
    best.attempt({stored(plain.scale), stored(plain.low)});
    fit_scales<32>(tile, most, stored, best);
    fit_ranges<32, false>(tile, most, 16, stored, best);
    const F to_code = inverse(best.way.scale);
    codes.fill([&](int j) { return truncated(affine_code(tile.x[j], to_code, best.way.low, most)); });
    return best.way;
}

// weight = d * (code - 2^(bits-1))
template <int bits>
void symmetric(const Run& run) {
    constexpr int half = 1 << (bits - 1), bytes = 2 + 4 * bits;
    using Levels = Integers<-half, half - 1>;
    each_tile(run, [&](const Tile<32>& tile, int64_t first, int count) {
        Codes<32> codes;
        F d = extreme(tile.x) / all(-static_cast<float>(half));
        if (run.importance == nullptr) {
            const F to_code = inverse(d);
            codes.fill([&](int j) {
                const F code = to_float(truncated(tile.x[j] * to_code + all(half + 0.5f)));
                return truncated(min(code, all(2.0f * half - 1)));
            });
        } else {
            d = weighted_codes<Levels>(tile, rounded_to_half(d), 12, 0.8f, 1.1f, codes);
        }
        const Halves stored(d);
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + (first + b) * bytes;
            put_u16(out, stored.bits[b]);
            pack(codes.of[b], bits, out + 2);
        }
    });
}

// weight = d * code + m
template <int bits>
void affine(const Run& run) {
    constexpr float most = (1 << bits) - 1;
    constexpr int bytes = 4 + 4 * bits;
    each_tile(run, [&](const Tile<32>& tile, int64_t first, int count) {
        Codes<32> codes;
        F low = tile.x[0], high = tile.x[0];
        for (int j = 1; j < 32; ++j) {
            low = min(low, tile.x[j]);
            high = max(high, tile.x[j]);
        }
        F d = (high - low) / all(most), m = low;
        if (run.importance == nullptr) {
            const F to_code = inverse(d);
            codes.fill([&](int j) {
                const F code = to_float(truncated((tile.x[j] - low) * to_code + all(0.5f)));
                return truncated(min(code, all(most)));
            });
        } else {
            const Affine found = weighted_codes(tile, {d, m}, most, codes);
            d = found.scale;
            m = found.low;
        }
        const Halves stored_d(d), stored_m(m);
        for (int b = 0; b < count; ++b) {
            uint8_t* out = run.out + (first + b) * bytes;
            put_u16(out, stored_d.bits[b]);
            put_u16(out + 2, stored_m.bits[b]);
            pack(codes.of[b], bits, out + 4);
        }
    });
}

// To the nearest integer, halves away from zero; |v| < 2^23.
int8_t away_from_zero(float v) {
    const float whole = static_cast<float>(static_cast<int32_t>(v)), rest = v - whole;
    return static_cast<int8_t>(whole + (rest >= 0.5f ? 1.0f : rest <= -0.5f ? -1.0f : 0.0f));
}

// 32 signed bytes and their scale, the largest magnitude / 127.
float bytes_of_block(const float* x, int8_t* q) {
    float most = 0.0f;
    for (int j = 0; j < 32; ++j) most = std::max(most, std::fabs(x[j]));
    const float d = most / 127.0f, to_code = d != 0.0f ? 1.0f / d : 0.0f;
    for (int j = 0; j < 32; ++j) q[j] = away_from_zero(x[j] * to_code);
    return d;
}

// 32 signed bytes at q(block), and body(block, d).
template <typename Place, typename Body>
void signed_bytes(const Run& run, Place q, Body body) {
    if (run.importance == nullptr) {
        for (int64_t b = 0; b < run.n_blocks; ++b) body(b, bytes_of_block(run.x + 32 * b, q(b)));
        return;
    }
    using Levels = Integers<-127, 127>;
    each_tile(run, [&](const Tile<32>& tile, int64_t first, int count) {
        const F plain = rounded_to_half(abs(extreme(tile.x)) / all(127.0f));
        Codes<32> codes;
        const F d = weighted_codes<Levels>(tile, plain, 4, 0.97f, 1.01f, codes);
        alignas(64) float d_of[lanes];
        store(d_of, d);
        for (int b = 0; b < count; ++b) {
            for (int j = 0; j < 32; ++j) q(first + b)[j] = static_cast<int8_t>(codes.of[b][j] - 127);
            body(first + b, d_of[b]);
        }
    });
}

}  // namespace

void quantize_f16(const Run& run) {
    auto* out = reinterpret_cast<uint16_t*>(run.out);
    for (int64_t i = 0; i < run.n_blocks; ++i) out[i] = simd::f32_to_f16(run.x[i]);
}

void quantize_bf16(const Run& run) {  // to nearest even
    auto* out = reinterpret_cast<uint16_t*>(run.out);
    for (int64_t i = 0; i < run.n_blocks; ++i) {
        const auto bits = std::bit_cast<uint32_t>(run.x[i]);
        out[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

void quantize_q4_0(const Run& run) { symmetric<4>(run); }
void quantize_q5_0(const Run& run) { symmetric<5>(run); }
void quantize_q4_1(const Run& run) { affine<4>(run); }
void quantize_q5_1(const Run& run) { affine<5>(run); }

void quantize_q8_0(const Run& run) {
    const auto block = [&](int64_t b) { return run.out + 34 * b; };
    signed_bytes(
        run, [&](int64_t b) { return reinterpret_cast<int8_t*>(block(b) + 2); },
        [&](int64_t b, float d) { put_u16(block(b), to_half(d).bits); });
}

void quantize_q8_1(const Run& run) {
    const auto block = [&](int64_t b) { return run.out + 36 * b; };
    const auto codes = [&](int64_t b) { return reinterpret_cast<int8_t*>(block(b) + 4); };
    signed_bytes(run, codes, [&](int64_t b, float d) {
        const int8_t* q = codes(b);
        int sum = 0;
        for (int j = 0; j < 32; ++j) sum += q[j];
        put_u16(block(b), to_half(d).bits);
        put_u16(block(b) + 2, to_half(d * static_cast<float>(sum)).bits);
    });
}

// The scale is float32 and maps the weight of largest magnitude to -128 or 127, whichever sign it has.
void quantize_q8_k(const Run& run) {
    for (int64_t b = 0; b < run.n_blocks; ++b) {
        const float* x = run.x + 256 * b;
        uint8_t* out = run.out + 292 * b;
        const float most =
            *std::max_element(x, x + 256, [](float u, float v) { return std::fabs(u) < std::fabs(v); });
        const float d = std::fabs(most) / (most < 0 ? 128.0f : 127.0f),
                    to_code = d > 1e-37f ? 1.0f / d : 0.0f;
        std::memcpy(out, &d, 4);
        auto* q = reinterpret_cast<int8_t*>(out + 4);
        for (int j = 0; j < 256; ++j) q[j] = away_from_zero(std::clamp(x[j] * to_code, -128.0f, 127.0f));
        for (int g = 0; g < 16; ++g) {
            int sum = 0;
            for (int j = 0; j < 16; ++j) sum += q[16 * g + j];
            put_u16(out + 260 + 2 * g, static_cast<uint32_t>(sum));
        }
    }
}

}  // namespace clarion::quantize
