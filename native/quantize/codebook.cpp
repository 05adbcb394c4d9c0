// The formats whose weights are entries of a codebook with signs of their own: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and
// IQ3_S. A block of 256 has a scale d: f16 and for each group of 32 or 16 an integer s of four bits:
// weight = d * factor * (s + 1/2) * +-entry.
#include "formats/codebooks.h"
#include "quantize/codebook_block.h"
#include "quantize/quantizers.h"

namespace clarion::quantize {

namespace {

template <auto member, int dims_, int size_, int offset>
struct Codebook {
    static constexpr int dims = dims_, size = size_;
    static int value(int entry, int j) {
        uint8_t bytes[dims];
        std::memcpy(bytes, &(codebooks.*member)[entry], dims);
        return bytes[j] - offset;
    }
};

// Levels 8, 25, 43.
template <auto member, int size>
struct Iq2Book : Codebook<member, 8, size, 64> {
    static constexpr int n_levels = 3;
    static constexpr float base = 8.0f, step = 17.5f;
};
// Levels 4, 12, .. 52, 62.
struct Iq3XxsBook : Codebook<&Codebooks::iq3_xxs, 4, 256, 64> {
    static constexpr int n_levels = 8;
    static constexpr float base = 4.0f, step = 8.0f;
};
// Levels 1, 3, .. 15.
struct Iq3SBook : Codebook<&Codebooks::iq3_s, 4, 512, 16> {
    static constexpr int n_levels = 8;
    static constexpr float base = 1.0f, step = 2.0f;
};

// What of a block is written beside d.
struct Block {
    uint16_t entry[64];  // of each vector
    uint8_t sign[32];    // of each 8 weights, a bit for each negative one
    const int* s;        // of each group
};

// Seven signs, the eighth making their number even, of each 8 of 32 weights, and s.
uint32_t signs_and_scale(const uint8_t* sign, int s) {
    uint32_t v = static_cast<uint32_t>(s) << 28;
    for (int i = 0; i < 4; ++i) v |= static_cast<uint32_t>(sign[i] & 127) << 7 * i;
    return v;
}
void put_u32(uint8_t* out, uint32_t v) {
    put_u16(out, v);
    put_u16(out + 2, v >> 16);
}
void put_scales(const int* s, int n, uint8_t* out) {
    for (int i = 0; i < n; i += 2) out[i / 2] = static_cast<uint8_t>(s[i] | s[i + 1] << 4);
}

struct IQ2XXS {
    using Book = Iq2Book<&Codebooks::iq2_xxs, 256>;
    static constexpr int n = 32, bytes = 66;
    static constexpr bool even_signs = true;
    static constexpr int steps = 6;
    static constexpr float most = 15.0f, factor = 0.25f, from = 0.029f, to = 0.062f;
    static void pack(const Block& b, uint8_t* out) {
        for (int g = 0; g < 8; ++g) {
            for (int i = 0; i < 4; ++i) out[2 + 8 * g + i] = static_cast<uint8_t>(b.entry[4 * g + i]);
            put_u32(out + 6 + 8 * g, signs_and_scale(b.sign + 4 * g, b.s[g]));
        }
    }
};

struct IQ2XS {
    using Book = Iq2Book<&Codebooks::iq2_xs, 512>;
    static constexpr int n = 16, bytes = 74;
    static constexpr bool even_signs = true;
    static constexpr int steps = 6;
    static constexpr float most = 15.0f, factor = 0.25f, from = 0.029f, to = 0.062f;
    static void pack(const Block& b, uint8_t* out) {
        for (int i = 0; i < 32; ++i)
            put_u16(out + 2 + 2 * i, b.entry[i] | static_cast<uint32_t>(b.sign[i] & 127) << 9);
        put_scales(b.s, 16, out + 66);
    }
};

struct IQ2S {
    using Book = Iq2Book<&Codebooks::iq2_s, 1024>;
    static constexpr int n = 16, bytes = 82;
    static constexpr bool even_signs = false;
    static constexpr int steps = 6;
    static constexpr float most = 15.0f, factor = 0.25f, from = 0.029f, to = 0.062f;
    static void pack(const Block& b, uint8_t* out) {
        std::memset(out + 66, 0, 8);
        for (int i = 0; i < 32; ++i) {
            out[2 + i] = static_cast<uint8_t>(b.entry[i]);
            out[34 + i] = b.sign[i];
            out[66 + i / 4] |= static_cast<uint8_t>(b.entry[i] >> 8 << 2 * (i % 4));
        }
        put_scales(b.s, 16, out + 74);
    }
};

struct IQ3XXS {
    using Book = Iq3XxsBook;
    static constexpr int n = 32, bytes = 98;
    static constexpr bool even_signs = true;
    static constexpr int steps = 6;
    static constexpr float most = 15.0f, factor = 0.5f, from = 0.024f, to = 0.055f;
    static void pack(const Block& b, uint8_t* out) {
        for (int i = 0; i < 64; ++i) out[2 + i] = static_cast<uint8_t>(b.entry[i]);
        for (int g = 0; g < 8; ++g) put_u32(out + 66 + 4 * g, signs_and_scale(b.sign + 4 * g, b.s[g]));
    }
};

struct IQ3S {
    using Book = Iq3SBook;
    static constexpr int n = 32, bytes = 110;
    static constexpr bool even_signs = false;
    static constexpr int steps = 6;
    static constexpr float most = 15.0f, factor = 2.0f, from = 0.10f, to = 0.23f;
    static void pack(const Block& b, uint8_t* out) {
        std::memset(out + 66, 0, 8);
        for (int i = 0; i < 64; ++i) {
            out[2 + i] = static_cast<uint8_t>(b.entry[i]);
            out[66 + i / 8] |= static_cast<uint8_t>(b.entry[i] >> 8 << i % 8);
        }
        std::memcpy(out + 74, b.sign, 32);
        put_scales(b.s, 8, out + 106);
    }
};

// Magnitudes of 8 weights, and a bit for each negative one. Where the number of signs must be even and is not, the
// weight that matters least takes the other sign: its magnitude becomes negative.
template <bool even>
uint8_t take_signs(const float* x, const float* w, float* magnitude) {
    uint32_t sign = 0;
    int least = 0;
    for (int j = 0; j < 8; ++j) {
        magnitude[j] = std::fabs(x[j]);
        sign |= static_cast<uint32_t>(std::signbit(x[j])) << j;
        if (w[j] * magnitude[j] < w[least] * magnitude[least]) least = j;
    }
    if (even && __builtin_parity(sign)) {
        magnitude[least] = -magnitude[least];
        sign ^= 1u << least;
    }
    return static_cast<uint8_t>(sign);
}

template <typename Format>
struct Group {
    using Book = typename Format::Book;
    static constexpr int n = Format::n, vectors = n / Book::dims;
    const Shortlists<Book>& lists = Shortlists<Book>::get();
    const float *x = nullptr, *w = nullptr;
    Found found[vectors], trial[vectors];
    float error = 3e38f;

    // Searches with scale d, and keeps what it finds if that is better.
    bool attempt(float d) {
        const float e = search<Book, n>(lists, x, w, d, trial);
        if (!(e < error)) return false;
        error = e;
        std::copy_n(trial, vectors, found);
        return true;
    }
    uint16_t entry(int v) const { return lists[found[v].cell].entry[found[v].lane]; }
    float value(int j) const {
        const Found& at = found[j / Book::dims];
        return static_cast<float>(lists[at.cell].value(at.lane, j % Book::dims));
    }
    // sum(w x entry) and sum(w entry^2) of what was kept.
    void sums(float& xc, float& cc) const {
        xc = cc = 0.0f;
        for (int v = 0; v < vectors; ++v) {
            const auto& cell = lists[found[v].cell];
            for (int j = 0; j < Book::dims; ++j) {
                const int at = v * Book::dims + j;
                const auto c = static_cast<float>(cell.value(found[v].lane, j));
                xc += w[at] * x[at] * c;
                cc += w[at] * c * c;
            }
        }
    }
};

// Magnitudes, signs, and a search of what is left.
template <typename Format>
struct Signed : Fitted<Format, Group<Format>> {
    alignas(64) float magnitude[256];
    uint8_t sign[32];
};

template <typename Format>
void quantize(const Run& run) {
    constexpr int vectors = Group<Format>::vectors;
    each_block<Format, Signed<Format>>(
        run,
        [](const float* x, const Weights<Format::n>& weights, Signed<Format>& to) {
            for (int i = 0; i < 32; ++i)
                to.sign[i] =
                    take_signs<Format::even_signs>(x + 8 * i, weights.w + 8 * i, to.magnitude + 8 * i);
            to.d = fit_block<Format>(to.magnitude, weights, to.group, to.s);
        },
        [](const Signed<Format>& from, uint8_t* out) {
            Block block;
            std::copy_n(from.sign, 32, block.sign);
            block.s = from.s;
            for (int v = 0; v < 256 / Format::Book::dims; ++v)
                block.entry[v] = from.group[v / vectors].entry(v % vectors);
            put_u16(out, from.d.bits);
            Format::pack(block, out);
        });
}

}  // namespace

void quantize_iq2_xxs(const Run& run) { quantize<IQ2XXS>(run); }
void quantize_iq2_xs(const Run& run) { quantize<IQ2XS>(run); }
void quantize_iq2_s(const Run& run) { quantize<IQ2S>(run); }
void quantize_iq3_xxs(const Run& run) { quantize<IQ3XXS>(run); }
void quantize_iq3_s(const Run& run) { quantize<IQ3S>(run); }

}  // namespace clarion::quantize
