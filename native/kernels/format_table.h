// The formats as the machine sees them at run time: a row of this table for each format of formats/table.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace clarion {

struct EncodedLayout;

// A block of columns of a panel, decoded, in L1.
struct Tile {
    uint8_t* u;      // [cols/4][16 rows][4]
    float* scale;    // [cols/group][16]
    float* neg_min;  // [cols/group][16], where the format has minima
};

// What a product fetches while it multiplies: each line three times, the nearer the later. Processors drop what is to be
// fetched while their miss buffers are full (a Zen 4 "fetches" 150 GB/s from a memory of 25), and a line that is not there
// when it is needed costs all of the memory's latency. Two threads that share a memory gain 7% (Q4_K) to 14% (Q6_K).
struct Fetch {
    const uint8_t *first, *again, *last;

    [[gnu::always_inline]] void line(int64_t at) const {
        simd::prefetch(first + at);
        simd::prefetch(again + at);
        simd::prefetch(last + at);
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
    // One of the two: how rows are decoded, or panels (kernels/panel.h). Some blocks: at most 512 columns.
    void (*unpack)(const uint8_t* row, int64_t blocks, uint8_t* u, float* scale, float* neg_min);
    void (*decode_panel)(const uint8_t* panel, int64_t blocks, const Tile& tile);
    // The product of some blocks of a panel, `n` columns from `first` on, with one token of `n_cols`, the weights never
    // leaving registers; null unless the format is hot and simd::live_groups allows it. Adds to `sums`. As many bytes as the
    // blocks have are fetched meanwhile.
    struct Columns {
        int64_t first, n, n_cols;
    };
    using One = void (*)(const uint8_t* panel, const Columns& columns, const std::byte* activation,
                         const Fetch& fetch, float* sums);
    One one_fast, one_high;

    // Float formats: the product of 16 rows with some tokens; n weights of a row.
    void (*multiply_floats)(simd::Rows16 rows, int64_t n_cols, const std::byte* const* tokens,
                            int64_t n_tokens, Fetch fetch, float* sums);
    void (*dequantize_floats)(const uint8_t* row, int64_t n, float* x);

    // n weights from a block's start, n a multiple of block.
    void dequantize(const uint8_t* row, int64_t n, float* x) const;

    bool integer() const { return group != 0; }
    int64_t row_bytes(int64_t cols) const { return cols / block * bytes; }
};

const Format* find_format(int id);  // null when unknown
const Format* formats_begin();
const Format* formats_end();

}  // namespace clarion
