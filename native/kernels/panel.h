// How the 16 rows of a panel of weights lie side by side.
//
// Decoders want a vector of four bytes of each row. Rows as a file has them are 16 streams, which take 24 shuffles for
// every 16 bytes of each; a panel is those bytes in the order in which they are wanted:
//
//     block after block, each 16 times as long as in a row. In it, from the first byte on:
//         4 bytes of row 0, 4 bytes of row 1, ... 4 bytes of row 15; the next 4 bytes of row 0, ...
//     and where a block's bytes are not whole fours, what is left of them (1 or 2 bytes, a scale) row after row,
//     before all others or after them (formats/format.h: odd_last).
//
// So what is at byte `at` of a block's row 0 is at byte 16 * at of the panel's block. A panel has as many bytes as its rows.
// Matrices that are copied are copied so; those that stay where a file has them become panels piece by piece in L1.
#pragma once

#include <cstdint>

#include "formats/entry.h"
#include "machine/tiling.h"
#include "simd/simd.h"

namespace clarion {

// Of 512 columns: Q8_K, whose weights take the most.
inline constexpr int64_t most_panel_bytes = 16 * most_tile_columns / 256 * 292;

// Some blocks of 16 rows, which need not be different (stride 0), to a panel.
void interleave(const Format& format, simd::Rows16 rows, int64_t blocks, uint8_t* panel);

}  // namespace clarion
