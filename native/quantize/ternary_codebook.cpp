// IQ1_S and IQ1_M: entries of a codebook of -1, 0 and 1, all shifted up or down by an eighth. A block of 256 has a
// scale d: f16 and for each group an integer s of three bits: weight = d * (2 s + 1) * (entry +- 1/8).
#include "formats/codebooks.h"
#include "quantize/codebook_block.h"
#include "quantize/quantizers.h"

namespace clarion::quantize {

namespace {

struct Book {
    static constexpr int dims = 8, size = 2048, n_levels = 3;
    static constexpr float base = -1.0f, step = 1.0f;
    static int value(int entry, int j) {
        uint8_t bytes[8];
        std::memcpy(bytes, &codebooks.iq1[entry], 8);
        return bytes[j] / 8 - 1;
    }
};

struct IQ1S {
    static constexpr int n = 32, bytes = 50, steps = 4, vectors_of_shift = 4;
    static constexpr float most = 7.0f, factor = 2.0f, from = 0.9f, to = 1.9f;
};
struct IQ1M {
    static constexpr int n = 16, bytes = 56, steps = 4, vectors_of_shift = 1;
    static constexpr float most = 7.0f, factor = 2.0f, from = 0.9f, to = 1.9f;
};

template <typename Format>
struct Group {
    static constexpr int n = Format::n, vectors = n / 8;
    const Shortlists<Book>& lists = Shortlists<Book>::get();
    const float *x = nullptr, *w = nullptr;
    Found found[vectors];
    float shift[vectors];
    float error = 3e38f;

    bool attempt(float d) {
        Found trial[2][vectors];
        for (int down = 0; down < 2; ++down) {
            alignas(64) float shifted[n];
            for (int j = 0; j < n; ++j) shifted[j] = x[j] - d * (down ? -0.125f : 0.125f);
            search<Book, n>(lists, shifted, w, d, trial[down]);
        }
        bool down[vectors];
        float total = 0.0f;
        constexpr int together = Format::vectors_of_shift;
        for (int v = 0; v < vectors; v += together) {
            float sum[2] = {0.0f, 0.0f};
            for (int i = v; i < v + together; ++i) {
                sum[0] += trial[0][i].error;
                sum[1] += trial[1][i].error;
            }
            std::fill_n(down + v, together, sum[1] < sum[0]);
            total += std::min(sum[0], sum[1]);
        }
        if (!(total < error)) return false;
        error = total;
        for (int v = 0; v < vectors; ++v) {
            found[v] = trial[down[v]][v];
            shift[v] = down[v] ? -0.125f : 0.125f;
        }
        return true;
    }
    uint16_t entry(int v) const { return lists[found[v].cell].entry[found[v].lane]; }
    // An entry with its shift.
    float value(int j) const {
        const Found& at = found[j / 8];
        return static_cast<float>(lists[at.cell].value(at.lane, j % 8)) + shift[j / 8];
    }
    // sum(w x c) and sum(w c^2) of the values that were kept.
    void sums(float& xc, float& cc) const {
        xc = cc = 0.0f;
        for (int j = 0; j < n; ++j) {
            const float c = value(j);
            xc += w[j] * x[j] * c;
            cc += w[j] * c * c;
        }
    }
};

template <typename Format, typename Write>
void quantize(const Run& run, Write write) {
    using Found = Fitted<Format, Group<Format>>;
    each_block<Format, Found>(
        run,
        [](const float* x, const Weights<Format::n>& weights, Found& to) {
            to.d = fit_block<Format>(x, weights, to.group, to.s);
        },
        write);
}

}  // namespace

void quantize_iq1_s(const Run& run) {
    quantize<IQ1S>(run, [](const Fitted<IQ1S, Group<IQ1S>>& from, uint8_t* out) {
        const auto& [group, s, d] = from;
        put_u16(out, d.bits);
        for (int g = 0; g < 8; ++g) {
            uint32_t h = static_cast<uint32_t>(s[g]) << 12 | (group[g].shift[0] < 0 ? 1u << 15 : 0u);
            for (int v = 0; v < 4; ++v) {
                const uint32_t entry = group[g].entry(v);
                out[2 + 4 * g + v] = static_cast<uint8_t>(entry);
                h |= entry >> 8 << 3 * v;
            }
            put_u16(out + 34 + 2 * g, h);
        }
    });
}

void quantize_iq1_m(const Run& run) {
    quantize<IQ1M>(run, [](const Fitted<IQ1M, Group<IQ1M>>& from, uint8_t* out) {
        const auto& [group, s, half] = from;
        const uint32_t d = half.bits;
        for (int g = 0; g < 16; ++g) {
            uint32_t h = 0;
            for (int v = 0; v < 2; ++v) {
                const uint32_t entry = group[g].entry(v);
                out[2 * g + v] = static_cast<uint8_t>(entry);
                h |= (entry >> 8 | (group[g].shift[v] < 0 ? 8u : 0u)) << 4 * v;
            }
            out[32 + g] = static_cast<uint8_t>(h);
        }
        for (int i = 0; i < 4; ++i) {
            uint32_t bits = d >> 4 * i << 12;
            for (int k = 0; k < 4; ++k) bits |= static_cast<uint32_t>(s[4 * i + k]) << 3 * k;
            put_u16(out + 48 + 2 * i, bits);
        }
    });
}

}  // namespace clarion::quantize
