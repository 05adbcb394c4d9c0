// What only the codebook formats need, in plain C++. These are templates, so that a header's own function of the same
// name, which is none, is preferred: a header defines them where its processor has something better.
#pragma once

#include <cstdint>
#include <cstring>

namespace clarion::simd {

// table[index[r]] for 16 rows, index in memory: 8 bytes a row, its first four to w0 and its last four to w1.
template <typename = void>
void look_up_rows(const uint64_t* table, const uint32_t* index, u8x64& w0, u8x64& w1) {
    alignas(64) uint8_t first[64], last[64];
    for (int r = 0; r < 16; ++r) {
        std::memcpy(first + 4 * r, table + index[r], 4);
        std::memcpy(last + 4 * r, reinterpret_cast<const uint8_t*>(table + index[r]) + 4, 4);
    }
    w0 = load_bytes(first);
    w1 = load_bytes(last);
}
// The same with 4 bytes a row.
template <typename = void>
u8x64 look_up_rows(const uint32_t* table, const uint32_t* index) {
    alignas(64) uint32_t entries[16];
    for (int r = 0; r < 16; ++r) entries[r] = table[index[r]];
    return load_bytes(entries);
}
// Byte j of a row of w0 becomes (byte ^ flip) + add where bit j of the row's flags is set, byte j of w1 where bit
// 4 + j is.
template <typename = void>
void change_flagged(u8x64& w0, u8x64& w1, i32x16 flags, uint8_t flip, uint8_t more) {
    alignas(64) uint8_t u[2][64];
    alignas(64) int32_t set[16];
    store_bytes(u[0], w0);
    store_bytes(u[1], w1);
    store(set, flags);
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 64; ++i)
            if ((set[i / 4] >> (4 * half + i % 4) & 1) != 0)
                u[half][i] = static_cast<uint8_t>((u[half][i] ^ flip) + more);
    w0 = load_bytes(u[0]);
    w1 = load_bytes(u[1]);
}

}  // namespace clarion::simd
