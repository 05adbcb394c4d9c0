// What only the codebook formats need, in plain C++. These are templates of any types, so that a header's own function of
// the same name is preferred: a header defines them where its processor has something better.
#pragma once

#include <cstdint>
#include <cstring>

namespace clarion::simd {

// table[i] for 16 rows, i being the low 16 bits (half 0) or the high ones (half 1) of each row's pair of indices in memory: 8
// bytes a row, its first four to w0 and its last four to w1.
template <typename = void>
void look_up_rows(const uint64_t* table, const uint32_t* pairs, int half, u8x64& w0, u8x64& w1) {
    alignas(64) uint8_t first[64], last[64];
    for (int r = 0; r < 16; ++r) {
        const auto* entry = reinterpret_cast<const uint8_t*>(table + (pairs[r] >> 16 * half & 0xffff));
        std::memcpy(first + 4 * r, entry, 4);
        std::memcpy(last + 4 * r, entry + 4, 4);
    }
    w0 = load_bytes(first);
    w1 = load_bytes(last);
}
// table[i] to w0 and table[j] to w1 for 16 pairs in memory, i in the low 16 bits and j in the high ones.
template <typename = void>
void look_up_pairs(const uint32_t* table, const uint32_t* pairs, u8x64& w0, u8x64& w1) {
    alignas(64) uint32_t first[16], second[16];
    for (int r = 0; r < 16; ++r) {
        first[r] = table[pairs[r] & 0xffff];
        second[r] = table[pairs[r] >> 16];
    }
    w0 = load_bytes(first);
    w1 = load_bytes(second);
}
// A codebook of n entries, 256 or 512, of 4 bytes, as codebooks.py packs them: four bits for each byte, and what they
// stand for.
struct PackedCodebook {
    const uint8_t *packed, *levels;
    int n;
};
// A header may have the means to look those up:
//
//     void look_up_packed(const PackedCodebook&, uint32_t* pairs, int count);
//     void unpack_two(const PackedCodebook&, const uint32_t* packed, u8x64& w0, u8x64& w1);
//
// The first puts packed entries in the place of the indices of [count][16] pairs; the second gives the bytes of 16 pairs.

// Byte j of a row of w0 becomes (byte ^ flip) + add where bit j of the row's flags is set, byte j of w1 where bit
// 4 + j is.
template <typename Vector, typename Flags>
void change_flagged(Vector& w0, Vector& w1, Flags flags, uint8_t flip, uint8_t more) {
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

// Byte j becomes twice - byte in the same places.
template <typename Vector, typename Flags>
[[gnu::always_inline]] inline void negate_flagged(Vector& w0, Vector& w1, Flags flags, uint8_t twice) {
    change_flagged(w0, w1, flags, 0xff, static_cast<uint8_t>(twice + 1));
}

// All eight bytes of a row change to byte + more where its eight flags are set. They are all set, or none is.
template <typename Vector, typename Flags>
[[gnu::always_inline]] inline void shift_flagged(Vector& w0, Vector& w1, Flags flags, uint8_t more) {
    change_flagged(w0, w1, flags, 0, more);
}

}  // namespace clarion::simd
