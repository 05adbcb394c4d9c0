// How large pieces of work are: machine/tiling.cpp has the formulas and their reasons.
//
// No size here changes a result: each is a number of whole blocks of columns, of tokens or of panels, and sums run over
// columns in the same order wherever they are interrupted.
#pragma once

#include <cstdint>

namespace clarion {

// Bytes of data caches that one core has to itself. clarion.host.hierarchy detects them; these are the smallest that
// processors with wide vectors are built with.
struct Caches {
    int64_t l1 = 32 << 10;
    int64_t l2 = 256 << 10;
};

// Columns that a decoder takes at a time, at most.
inline constexpr int64_t most_tile_columns = 512;

struct Tiling {
    // Throws std::invalid_argument for caches that no processor has.
    explicit Tiling(Caches caches = {}, bool fetch_near = false);

    int64_t columns;           // of a tile of integers
    int64_t columns_few;       // the same for few tokens
    int64_t columns_f32;       // of a tile of floats
    int64_t activation_bytes;  // that panel after panel meets
    int64_t least_tokens;      // that panel after panel meets, whatever they take
    int64_t fetch_ahead;       // bytes of weights between what is multiplied and what is fetched
    bool fetch_near;           // into the first cache at once, not by way of the second
    int64_t few_tokens;        // up to here reading weights is what costs, beyond it multiplying
    int64_t item_bytes;        // of weights in an item, where reading them is what costs
};

}  // namespace clarion
