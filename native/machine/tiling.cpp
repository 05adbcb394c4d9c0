// Sizes from the caches they are meant for, and from what handing out work costs. What is bound by the number of
// registers (the tokens that share a load: simd::tile_*) stands with the instructions in simd/.
#include "machine/tiling.h"

#include <algorithm>

#include "machine/checked.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// Columns that fill two thirds of L1 at so many bytes each; the rest is for sums, the stack and weights on their way in.
// Whole blocks of 256, which K formats have, and at most what a decoder takes at a time: sums are then loaded and stored
// once in 16 groups of 32 columns, where more columns would gain nothing.
int64_t columns_of(int64_t bytes, int64_t l1) {
    return std::clamp<int64_t>(l1 * 2 / 3 / bytes / 256 * 256, 256, most_tile_columns);
}

}  // namespace

Tiling::Tiling(Caches caches, bool fetch_near) : fetch_near(fetch_near) {
    expect_range(caches.l1, 1 << 10, 1 << 30, {"l1"});
    expect_range(caches.l2, 1 << 10, 1 << 30, {"l2"});

    // A tile of 16 rows is read once for every few tokens, so it should stay in L1 together with the activations of the
    // tokens that registers hold. A column has
    //     16 bytes of weights, 8 of scales and minima (a float each for 16 rows of 16 columns),
    //     1 byte of each of the tile_fast tokens, or 2 of each of the tile_high ones.
    const int64_t integers = 16 + 8;
    columns = columns_of(integers + std::max(simd::tile_fast, 2 * simd::tile_high), caches.l1);

    // With few tokens the lines of a tile are fetched in as few bursts, and of a long one the processor drops some. On a
    // Zen 5 four tokens with tiles of 256 columns instead of 512 read Q8_0 at 29 GB/s instead of 21, Q6_K at 24 instead of
    // 17 (AVX2: 14 and 14 instead of 12 and 11), formats of 4 bits as fast as before.
    columns_few = std::min(columns, int64_t{256});

    // Floats are made from a tile of integers, and meet activations that are floats.
    columns_f32 = columns_of(integers + 4 * 16 + 4 * simd::tile_f32, caches.l1);

    // Half of L2; the other half is for the panels that pass and the sums that leave. With fewer than 48 tokens decoding
    // a tile is no longer small against multiplying with it.
    activation_bytes = caches.l2 / 2;
    least_tokens = 48;

    // Sixteen rows are sixteen streams, more than the hardware follows, and memory under load answers after half a
    // microsecond or more, in which a core reads 12 to 20 KB. So this is what is on its way, and it fits L1 (32 KB or more).
    // Lines are fetched again at a half and at a sixth of it (`Fetch`).
    //
    // Into which cache is a matter of processors. On a Zen 5, one thread read 35 to 38 GB/s of Q4_0 and Q4_K with 16 to 32 KB
    // fetched into L1, 33 to 34 with 48 KB, and 24 to 29 with 12 to 192 KB fetched into L2. On a Zen 4 it read, of a 1B model in
    // Q4_K_M, 25 GB/s with 24 KB fetched into L2, as much where the last of three fetches goes into L1, 12 with 6 to 24 KB
    // fetched into L1, and 9 with none. So clarion.host says which.
    fetch_ahead = std::min(int64_t{24} << 10, caches.l2 / 4);

    // A Cascade Lake core multiplies 290 G/s where its memory feeds 17 G weights/s (Q4_K); other processors' quotients are
    // smaller. So beyond this multiplying is what costs, and up to here items of many panels do no harm.
    few_tokens = 16;

    // Ten microseconds of a core's bandwidth: long against taking an item, which waits for the reads before it, and short
    // against a matrix, at whose end threads wait for one another.
    item_bytes = int64_t{256} << 10;
}

}  // namespace clarion
