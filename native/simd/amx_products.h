// Products of a tile with 16 tokens at a time by tile registers, each 16 rows of 64 bytes: what amx.h does, in terms of
//
//     tiles::granted()                       whether there are such registers
//     tiles::configure(shape)                their rows and the bytes of each
//     tiles::zero<n>(), load<n>(p, stride), store<n>(p, stride), release()
//     tiles::dot<sum, a, w>()                sum[i][j] += a[i][4k .. 4k+3] . w[k][4j .. 4j+3], a signed, w unsigned
//
// which a test says in plain C++ (tests/amx_emulated.h). A group of columns is one product: a holds 16 tokens, w the group's
// weights as they lie in a decoded tile, and row t of the sum is the vector of 16 rows that the vocabulary's accumulator of
// token t would have. A group of 32 columns fills half of the registers' depth and one of 16 a quarter, since groups cannot
// be added before they are scaled: half of the peak is the most that exact group sums allow.
//
// 16-bit activations lie as quads of upper and of lower bytes in turns. Rows of zeros between those of the weights leave out
// one kind, so the same a gives both sums, and the depth is full.
#pragma once

#include <cstring>
#include <type_traits>

#include "simd/tile.h"

namespace clarion::simd {

namespace tiles {

// Of palette 1: bytes of a row and rows of each of the eight registers.
struct alignas(64) Shape {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    // Two sets of four registers: a sum (with 16-bit activations two), activations and weights.
    Shape(int a_bytes) {
        for (int set = 0; set < 8; set += 4) {
            for (int sum = 0; sum < 2; ++sum) put(set + sum, 16, 64);
            put(set + 2, 16, a_bytes);
            put(set + 3, a_bytes / 4, 64);
        }
    }

  private:
    void put(int n, int n_rows, int bytes) {
        rows[n] = static_cast<uint8_t>(n_rows);
        row_bytes[n] = static_cast<uint16_t>(bytes);
    }
};
static_assert(sizeof(Shape) == 64);

}  // namespace tiles

template <typename Accumulator>
class TileMultiplier {
  public:
    explicit TileMultiplier(const TileProduct& product) : p_(product) {
        if constexpr (high) {
            const int64_t quads = p_.columns / 4;
            std::memset(weights_, 0, 64);
            for (int64_t q = 0; q < quads; ++q) {
                std::memcpy(weights_ + 128 * q + 64, p_.u + 64 * q, 64);
                std::memset(weights_ + 128 * q + 128, 0, 64);
            }
        }
    }

    // Tokens t .. t+15.
    void run(int64_t t) {
        for (int i = 0; i < 16; ++i) total_[i] = load(p_.sums + 16 * (t + i));
        place(t);
        const int64_t groups = p_.columns / p_.group;
        // One group is multiplied while the one before it is scaled.
        start<0>(0);
        for (int64_t g = 0; g < groups; ++g) {
            if (g + 1 < groups) (g & 1) != 0 ? start<0>(g + 1) : start<1>(g + 1);
            finish(t, g);
        }
        for (int i = 0; i < 16; ++i) store(p_.sums + 16 * (t + i), total_[i]);
    }

  private:
    static constexpr bool high = Accumulator::quad_bytes == 8;

    // A register is loaded from rows at equal distances: those of a batch are, those of an expert's tokens are copied.
    void place(int64_t t) {
        activations_ = p_.token_quads(t);
        stride_ = p_.token_quads(t + 1) - activations_;
        bool even = true;
        for (int i = 2; i < 16; ++i) even = even && p_.token_quads(t + i) == activations_ + i * stride_;
        if (even) return;
        stride_ = p_.columns / 4 * Accumulator::quad_bytes;
        for (int i = 0; i < 16; ++i)
            std::memcpy(copy_ + i * stride_, p_.token_quads(t + i), static_cast<size_t>(stride_));
        activations_ = copy_;
    }

    template <int set>
    void start(int64_t g) {
        constexpr int sum = 4 * set, a = sum + 2, w = sum + 3;
        const int64_t quads = g * p_.group / 4;
        tiles::load<a>(activations_ + quads * Accumulator::quad_bytes, stride_);
        if constexpr (high) {
            // From the weights on: w, 0, w, 0, .. meets the upper bytes; from the zeros before them, the lower ones.
            tiles::load<w>(weights_ + 128 * quads + 64, 64);
            tiles::zero<sum>();
            tiles::dot<sum, a, w>();
            tiles::load<w>(weights_ + 128 * quads, 64);
            tiles::zero<sum + 1>();
            tiles::dot<sum + 1, a, w>();
            tiles::store<sum>(upper_[set], 64);
            tiles::store<sum + 1>(sum_[set], 64);
        } else {
            tiles::load<w>(p_.u + 64 * quads, 64);
            tiles::zero<sum>();
            tiles::dot<sum, a, w>();
            tiles::store<sum>(sum_[set], 64);
        }
    }

    void finish(int64_t t, int64_t g) {
        const f32x16 scale = load(p_.scale + 16 * g);
        for (int i = 0; i < 16; ++i) {
            i32x16 sum = load(sum_[g & 1] + 16 * i);
            if constexpr (high) sum = add(sum, shift_left<8>(load(upper_[g & 1] + 16 * i)));
            if (p_.offset != 0) sum = add(sum, set1(-p_.offset * p_.token_sum(t + i, g)));
            const f32x16 x = to_f32(sum), a_scale = set1(p_.token_scale(t + i, g));
            if (p_.group == 32) {
                total_[i] = fma(x, mul(scale, a_scale), total_[i]);
            } else if (g % 2 == 0) {
                scaled_[i] = mul(x, scale);
                continue;
            } else {
                total_[i] = fma(fma(x, scale, scaled_[i]), a_scale, total_[i]);
            }
            if (p_.neg_min == nullptr) continue;
            for (int64_t h = g + 1 - 32 / p_.group; h <= g; ++h)
                total_[i] = fma(load(p_.neg_min + 16 * h), set1(p_.token_fsum(t + i, h)), total_[i]);
        }
    }

    const TileProduct& p_;
    const uint8_t* activations_;
    int64_t stride_;
    f32x16 total_[16], scaled_[16];
    alignas(64) int32_t sum_[2][256], upper_[high ? 2 : 1][256];
    alignas(64) uint8_t weights_[high ? 32 * TileProduct::most_columns + 64 : 64];
    alignas(64) uint8_t copy_[4 * Accumulator::quad_bytes * TileProduct::most_columns];
};

template <typename Accumulator>
int64_t multiply_tile(const TileProduct& p, std::type_identity<Accumulator>) {
    const int64_t n_tokens = tiles::granted() ? p.n_tokens / 16 * 16 : 0;
    if (n_tokens == 0) return 0;
    TileMultiplier<Accumulator> multiplier(p);
    tiles::configure(tiles::Shape(p.group / 4 * Accumulator::quad_bytes));
    for (int64_t t = 0; t < n_tokens; t += 16) multiplier.run(t);
    tiles::release();  // a thread that sleeps has no tiles to save
    return n_tokens;
}

}  // namespace clarion::simd
