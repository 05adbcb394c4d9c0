// A weight format at run time: its facts, and its functions, which kernels/format_entry.h makes from the format's header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace clarion {

// Some columns of a panel, decoded, in L1.
struct Tile {
    uint8_t* u;      // [cols/4][16 rows][4]
    float* scale;    // [cols/group][16]
    float* neg_min;  // [cols/group][16], where the format has minima
};

// What a product fetches while it multiplies: each line three times, the nearer the later. Processors drop what is to be
// fetched while their miss buffers are full (a Zen 4 "fetches" 150 GB/s from a memory of 25), and a line that is not there
// when it is needed costs all of the memory's latency. Two threads that share a memory gain 7% (Q4_K) to 14% (Q6_K).
// A line comes into the second cache, and from there into the first; or at once into the first (Tiling::fetch_near).
struct Fetch {
    const uint8_t *first, *again, *last;
    bool near;

    [[gnu::always_inline]] void line(int64_t at) const {
        if (near) {
            simd::prefetch_l1(first + at);
            simd::prefetch_l1(again + at);
        } else {
            simd::prefetch(first + at);
            simd::prefetch(again + at);
        }
        simd::prefetch_l1(last + at);
    }
    [[gnu::always_inline]] void line_twice(int64_t at) const {
        near ? simd::prefetch_l1(first + at) : simd::prefetch(first + at);
        simd::prefetch_l1(last + at);
    }
    void advance(int64_t bytes) {
        first += bytes;
        again += bytes;
        last += bytes;
    }
};

// Which simd::fast_accumulator a format takes.
constexpr bool is_wide(int32_t largest) { return largest > 63; }

struct Format {
    int id;  // GGUF type id
    char name[8];
    int64_t block;  // weights in a block
    int64_t bytes;  // bytes in a block

    // Integer formats (formats/format.h); group is 0 in the others.
    int group;
    int32_t offset;
    bool has_min;
    int32_t largest;
    bool odd_last;
    // A module decodes rows, or it decodes panels (kernels/panel.h): one of the two is null. At most 512 columns at a time.
    void (*unpack)(const uint8_t* row, int64_t blocks, uint8_t* u, float* scale, float* neg_min);
    void (*decode_panel)(const uint8_t* panel, int64_t blocks, const Tile& tile);
    // Multiplies some blocks of a panel, `n` columns from `first` on, with one token of `n_cols` columns, and adds the products
    // to `sums`. The weights do not leave the registers. Meanwhile it fetches as many bytes as the blocks have. Null where
    // simd::live_groups is too few.
    struct Columns {
        int64_t first, n, n_cols;
    };
    using One = void (*)(const uint8_t* panel, const Columns& columns, const std::byte* activation,
                         const Fetch& fetch, float* sums);
    One one_fast, one_high;

    // Float formats: the product of 16 rows with one token; n weights of a row, a multiple of 16, while as many bytes are
    // fetched; n weights of a row, any n.
    void (*multiply_one_float)(simd::Rows16 rows, int64_t n_cols, const float* x, Fetch fetch, float* sums);
    void (*read_floats)(const uint8_t* row, int64_t n, const uint8_t* fetch, float* w);
    void (*dequantize_floats)(const uint8_t* row, int64_t n, float* x);

    bool integer() const { return group != 0; }
    int64_t row_bytes(int64_t cols) const { return cols / block * bytes; }
    // Whether a matrix of so many rows may lie as panels.
    bool can_be_panels(int64_t n_rows) const { return decode_panel != nullptr && n_rows % 16 == 0; }
};

}  // namespace clarion
