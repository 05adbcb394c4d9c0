// How large pieces of work are: machine/tiling.cpp has the formulas and their reasons.
//
// No size here changes a result: each is a number of whole blocks of columns, of tokens or of panels, and sums run over
// columns in the same order wherever they are interrupted.
#pragma once

#include <cstdint>

namespace clarion {

// Bytes of data caches that one core has to itself. clarion.devices.hierarchy detects them; these are the smallest that
// processors with wide vectors are built with.
struct Caches {
    int64_t l1 = 32 << 10;
    int64_t l2 = 256 << 10;
};

// Columns that a decoder takes at a time, at most.
inline constexpr int64_t most_tile_columns = 512;

// Bytes of weights between what is multiplied with one token and what is fetched. Sixteen rows are sixteen streams, more
// than the hardware follows, and memory under load answers after half a microsecond or more, in which a core reads 12 KB;
// four times as much measured best (2-core Zen 4). Each line is fetched three times, because processors drop what is to
// be fetched while their miss buffers are full (a Zen 4 "fetches" 150 GB/s from a memory of 25), and a line that is
// missing when it is needed costs all of the memory's latency. The second and third time most are there: two threads that
// share a memory gain 7% (Q4_K) to 14% (Q6_K). These are offsets within instructions, so they are constants: they follow
// from the memory's latency, and fit any second-level cache of 256 KB.
inline constexpr int64_t fetch_ahead = 48 << 10, fetch_again = 24 << 10, fetch_last = 8 << 10;

struct Tiling {
    // Throws std::invalid_argument for caches that no processor has.
    explicit Tiling(Caches caches = {});

    int64_t columns;           // of a tile of integers
    int64_t columns_f32;       // of a tile of floats
    int64_t activation_bytes;  // that panel after panel meets
    int64_t least_tokens;      // that panel after panel meets, whatever they take
    int64_t few_tokens;        // up to here reading weights is what costs, beyond it multiplying
    int64_t item_bytes;        // of weights in an item, where reading them is what costs
};

}  // namespace clarion
