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
    static_assert(dims % 4 == 0);
    struct Cell {
        int32_t values[dims / 4][lanes];  // four elements of each entry, a signed byte each
        uint16_t entry[lanes];
        int value(int lane, int j) const { return static_cast<int8_t>(values[j / 4][lane] >> 8 * (j % 4)); }
    };

    static const Shortlists& get() {
        static const Shortlists built;
        return built;
    }
    const Cell& operator[](int i) const { return cells_[i]; }

    // What the level of a vector's element adds to the number of its cell, for the elements in 16 lanes.
    struct Radix {
        alignas(64) float of[lanes];
    };
    static constexpr Radix radix = [] {
        Radix r{};
        for (int j = 0; j < lanes; ++j) r.of[j] = j % dims == 0 ? 1.0f : r.of[j - 1] * Book::n_levels;
        return r;
    }();

  private:
    static constexpr int n_cells = [] {
        int n = 1;
        for (int j = 0; j < dims; ++j) n *= Book::n_levels;
        return n;
    }();
    std::unique_ptr<Cell[]> cells_{new Cell[n_cells]()};

    Shortlists() {
        auto values = std::make_unique<int16_t[]>(dims * Book::size);  // [dims][size]
        for (int e = 0; e < Book::size; ++e)
            for (int j = 0; j < dims; ++j)
                values[j * Book::size + e] = static_cast<int16_t>(Book::value(e, j));
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
                for (int j = 0; j < dims; ++j) {
                    const auto byte = static_cast<uint8_t>(values[j * Book::size + e]);
                    cells_[cell].values[j / 4][k] |= static_cast<int32_t>(uint32_t{byte} << 8 * (j % 4));
                }
            }
        }
    }
};

// The j-th signed byte of each lane.
template <int j>
CLARION_LANES F byte_of(I a) {
    F r;
    CLARION_EACH_PIECE r.v[i] = __builtin_convertvector((a.v[i] << (24 - 8 * j)) >> 24, FloatPiece);
    return r;
}

// What a search found for one vector of a codebook.
struct Found {
    int cell, lane;
    float error;
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
[[gnu::noinline]] float search(const Shortlists<Book>& lists, const float* x, const float* w, float d,
                               Found* found) {
    const F to_level = inverse(all(d * Book::step)), zero = all(Book::base / Book::step);
    float total = 0.0f;
    for (int at = 0; at < n; at += lanes) {
        alignas(64) int32_t part[lanes];
        const F level = rounded(clamp(load(x + at) * to_level - zero, all(0.0f), all(Book::n_levels - 1.0f)));
        store(part, truncated(level * load(lists.radix.of)));
        for (int k = 0; k < lanes; k += Book::dims, ++found) {
            found->cell = std::accumulate(part + k, part + k + Book::dims, 0);
            const auto& cell = lists[found->cell];
            F error = all(0.0f);
            const auto add = [&](int j, F value) __attribute__((always_inline)) {
                const F off = all(x[at + k + j]) - all(d) * value;
                error = error + all(w[at + k + j]) * square(off);
            };
            for (int four = 0; four < Book::dims / 4; ++four) {
                const I values = load(cell.values[four]);
                add(4 * four, byte_of<0>(values));
                add(4 * four + 1, byte_of<1>(values));
                add(4 * four + 2, byte_of<2>(values));
                add(4 * four + 3, byte_of<3>(values));
            }
            found->error = least_lane(error, found->lane);
            total += found->error;
        }
    }
    return total;
}

}  // namespace clarion::quantize
