#include "kernels/panel.h"

#include <cstring>

namespace clarion {

namespace {

// A block's bytes: whole fours, and 0 to 2 odd bytes before or after them.
struct BlockBytes {
    int64_t odd, odd_at, fours, fours_at;

    explicit BlockBytes(const Format& f)
        : odd(f.bytes % 4),
          odd_at(f.odd_last ? f.bytes - odd : 0),
          fours(f.bytes - odd),
          fours_at(f.odd_last ? 0 : odd) {}
};

}  // namespace

// Roofline, AVX-512 on a Zen 4: 256 bytes, 16 of each row, are 16 loads, 12 joins of halves, 8 shuffles of 512 bits, of which one
// begins in a cycle, and 4 stores of 512 bits, one in two cycles: 14 to 16 cycles, 60 GB/s. Read from a file's mapping and written
// to new memory they pass the memory three times (a store reads its line first): at 28 GB/s, 27 cycles. Weights are copied once
// for a program; the first seconds of a generation are full of it, a longer one is not. This is reasoned, not measured.
void interleave(const Format& format, simd::Rows16 rows, int64_t blocks, uint8_t* panel) {
    const BlockBytes block(format);
    for (int64_t b = 0; b < blocks; ++b, rows.base += format.bytes, panel += 16 * format.bytes) {
        // Every block has 16 bytes of fours or more; the last 16 may overlap those before.
        for (int64_t k = 0; k < block.fours; k += 16) {
            const int64_t at = block.fours_at + (k + 16 <= block.fours ? k : block.fours - 16);
            simd::u8x64 quads[4];
            simd::transpose_16(rows, at, quads);
            for (int i = 0; i < 4; ++i) simd::store_bytes(panel + 16 * at + 64 * i, quads[i]);
        }
        const uint8_t* odd = rows.base + block.odd_at;
        uint8_t* to = panel + 16 * block.odd_at;
        if (block.odd == 2)
            for (int r = 0; r < 16; ++r) std::memcpy(to + 2 * r, odd + r * rows.stride, 2);
        else if (block.odd == 1)
            for (int r = 0; r < 16; ++r) to[r] = odd[r * rows.stride];
    }
}

}  // namespace clarion
