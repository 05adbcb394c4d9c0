// Nearest entries of a codebook.
//
// Space is cut into cells: a vector divided by its scale, each element rounded to the nearest of the codebook's
// levels. For each cell the sixteen entries nearest to its centre are listed, once, when a codebook is first used.
// A search looks at these sixteen alone, with the true weighted error, one entry in each lane.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>

#include "quantize/tile.h"

namespace clarion::quantize {

// A Book has: dims, n_levels, base, step (level l is near base + step * l), size, and value(entry, j).
template <typename Book>
class Shortlists {
  public:
    static constexpr int dims = Book::dims;
    struct Cell {
        uint16_t entry[lanes];
        int8_t value[dims][lanes];
    };

    static const Shortlists& get() {
        static const Shortlists built;
        return built;
    }
    const Cell& operator[](int i) const { return cells_[i]; }

    // For lane j of a vector: what its level adds to the number of its cell.
    static F radix() {
        alignas(64) float power[lanes];
        for (int j = 0; j < lanes; ++j)
            power[j] = j % dims == 0 ? 1.0f : power[j - 1] * static_cast<float>(Book::n_levels);
        return load(power);
    }

  private:
    static constexpr int n_cells = [] {
        int n = 1;
        for (int j = 0; j < dims; ++j) n *= Book::n_levels;
        return n;
    }();
    std::unique_ptr<Cell[]> cells_{new Cell[n_cells]};

    Shortlists() {
        auto values = std::make_unique<int16_t[]>(dims * Book::size);  // [dims][size]
        for (int e = 0; e < Book::size; ++e)
            for (int j = 0; j < dims; ++j) values[j * Book::size + e] = static_cast<int16_t>(Book::value(e, j));
        auto key = std::make_unique<uint32_t[]>(Book::size);  // distance, then entry
        for (int cell = 0; cell < n_cells; ++cell) {
            for (int e = 0; e < Book::size; ++e) key[e] = 0;
            for (int j = 0, rest = cell; j < dims; ++j, rest /= Book::n_levels) {
                // In halves, since the middle of IQ2's levels is none.
                const int center = static_cast<int>(2 * (Book::base + Book::step * (rest % Book::n_levels)));
                for (int e = 0; e < Book::size; ++e) {
                    const int off = 2 * values[j * Book::size + e] - center;
                    key[e] += static_cast<uint32_t>(off * off);
                }
            }
            for (int e = 0; e < Book::size; ++e) key[e] = key[e] << 11 | static_cast<uint32_t>(e);
            std::partial_sort(key.get(), key.get() + lanes, key.get() + Book::size);
            for (int k = 0; k < lanes; ++k) {
                const auto e = static_cast<int>(key[k] & 2047);
                cells_[cell].entry[k] = static_cast<uint16_t>(e);
                for (int j = 0; j < dims; ++j)
                    cells_[cell].value[j][k] = static_cast<int8_t>(values[j * Book::size + e]);
            }
        }
    }
};

typedef int8_t BytePiece __attribute__((vector_size(piece_lanes)));

CLARION_LANES F load_bytes(const int8_t* p) {
    F r;
    CLARION_EACH_PIECE {
        BytePiece b;
        std::memcpy(&b, p + piece_lanes * i, sizeof b);
        r.v[i] = __builtin_convertvector(b, FloatPiece);
    }
    return r;
}

// What a search found for one vector of a codebook.
struct Found {
    int cell, lane;
};

// The least lane, its number in the lowest four bits. Values are not negative: their order is that of their bits.
CLARION_LANES float least_lane(F a, int& lane) {
    alignas(64) int32_t bits[lanes];
    store(bits, bits_of(a));
    int32_t least = INT32_MAX;
    for (int l = 0; l < lanes; ++l) least = std::min(least, (bits[l] & ~15) | l);
    lane = least & 15;
    float error;
    least &= ~15;
    std::memcpy(&error, &least, 4);
    return error;
}

// sum(w (x - d * entry)^2) over n elements, each dims of them at their best entry, which `found` tells.
template <typename Book, int n>
[[gnu::noinline]] float search(const float* x, const float* w, float d, Found* found) {
    const auto& lists = Shortlists<Book>::get();
    const F radix = Shortlists<Book>::radix();
    const F to_level = inverse(all(d * Book::step)), zero = all(Book::base / Book::step);
    float total = 0.0f;
    for (int at = 0; at < n; at += lanes) {
        alignas(64) float part[lanes];
        const F level = rounded(clamp(load(x + at) * to_level - zero, all(0.0f), all(Book::n_levels - 1.0f)));
        store(part, level * radix);
        for (int k = 0; k < lanes; k += Book::dims, ++found) {
            float cell = 0.0f;
            for (int j = 0; j < Book::dims; ++j) cell += part[k + j];
            found->cell = static_cast<int>(cell);
            const auto& list = lists[found->cell];
            F error = all(0.0f);
#pragma GCC unroll 8
            for (int j = 0; j < Book::dims; ++j) {
                const F off = all(x[at + k + j]) - all(d) * load_bytes(list.value[j]);
                error = error + all(w[at + k + j]) * square(off);
            }
            total += least_lane(error, found->lane);
        }
    }
    return total;
}

}  // namespace clarion::quantize
