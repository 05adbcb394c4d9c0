// How keys and values are stored, and how the matrices of a page are laid out.
//
// A page holds 64 positions. Its matrices are cut so that attention reads them in order and no sum crosses lanes: keys
// have 16 positions in the lanes of a vector, values 16 elements of a head ("dims").
//
//     f32, f16, bf16
//         keys    [64/16][dim][16 positions]
//         values  [dim/16 rounded up][64][16 dims]
//     q8_0, q4_0: GGUF's blocks of 32 dims of one position, x = scale * (u - offset), u an unsigned byte or nibble.
//     The dims are padded to whole blocks with zeros.
//         keys    f16 scales [64/16][dim/32][16 positions], then
//                 q8_0  u [64/16][dim/32][8][16 positions][4 dims]
//                 q4_0  u [64/16][dim/32][4][16 positions][4 dims, and in the high nibbles the next 4]
//         values  f16 scales [dim/32][64 positions], then
//                 q8_0  u [dim/16][64/4][16 dims][4 positions]
//                 q4_0  u [dim/32][64/4][16 dims, and in the high nibbles the next 16][4 positions]
//     so both are panels of 16 rows x 4 columns, which products of integers want (simd/generic.h), and a byte belongs
//     to one position: threads that write different positions never write the same byte.
#pragma once

#include <cstdint>
#include <string>

namespace clarion {

enum class KvFormat { f32, f16, bf16, q8_0, q4_0 };

// Positions in a page, lanes of a vector, dims in a block.
inline constexpr int64_t kv_page = 64, kv_lanes = 16, kv_block = 32;

inline bool is_integer(KvFormat format) { return format == KvFormat::q8_0 || format == KvFormat::q4_0; }
inline int64_t kv_blocks(int64_t dim) { return (dim + kv_block - 1) / kv_block; }

// What storage added to an integer. Largest magnitudes: 127 of q8_0, 8 of q4_0.
inline int32_t kv_offset(KvFormat format) { return format == KvFormat::q8_0 ? 128 : 8; }

// Of an element of a float format.
inline int64_t kv_element_bytes(KvFormat format) { return format == KvFormat::f32 ? 4 : 2; }

// Where the integers of a page's matrix begin, behind its scales.
inline int64_t kv_scale_bytes(int64_t dim) { return 2 * kv_page * kv_blocks(dim); }

// Bytes of the keys or the values of a page, of one head; a multiple of 64.
inline int64_t kv_bytes(KvFormat format, int64_t dim, bool values) {
    if (is_integer(format))
        return kv_scale_bytes(dim) + kv_page * kv_block * kv_blocks(dim) / (format == KvFormat::q4_0 ? 2 : 1);
    if (values) dim = (dim + kv_lanes - 1) / kv_lanes * kv_lanes;
    return kv_page * dim * kv_element_bytes(format);
}

// f32, f16, bf16, q8_0 or q4_0; throws std::invalid_argument.
KvFormat kv_format(const std::string& name);

}  // namespace clarion
