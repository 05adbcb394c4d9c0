// A weight format is a decoder. It knows the bytes of its block, and nothing of the products that are made with its weights.
// It is a struct:
//
//     static constexpr int id; const char* name; int block (weights), bytes (of a block)
//
// There are two sorts. In a block of an INTEGER format, weight = scale * (u - offset) + neg_min, where u is an unsigned byte.
// Such a format has:
//
//     int group       how many columns share a scale: 16 or 32
//     int32_t offset  what was added to each weight to store it unsigned
//     bool has_min    whether each group has a minimum
//     int32_t largest the largest u: it decides how many products a sum of 16 bits can hold
//     static void unpack(const uint8_t* block, uint8_t* u, float* scale, float* neg_min);
//
// unpack() defines the format, in plain C++. It decodes one block of one row to u [block], and to scale and neg_min
// [block/group].
//
// Products take weights as panels of 16 rows: then each lane of a vector is a row. A panel holds four bytes of each row side
// by side (kernels/panel.h). So a format also has a decoder of panels:
//
//     bool odd_last   where bytes % 4 is not 0: whether the odd bytes are the last ones of a block, or the first ones
//     int live        how many groups a unit has: weights() delivers the columns of a unit together
//     static void scales(const uint8_t* panel, int64_t blocks, float* scale, float* neg_min);   [blocks * block/group][16]
//     static void weights(const uint8_t* panel, int64_t offset of the block in a row, Sink&);
//
// weights() delivers a block unit by unit. For each unit it calls
//
//     sink.begin()
//     sink.template put2<quad>(w0, w1)   for every two vectors of 16 rows x 4 columns, in any order; `quad` is the number of
//                                        the first one's four columns within the unit
//     sink.finish()
//
// A format with `int runs` of 2 needs half the machine code. It delivers the first 16 columns of each 32 and calls
// sink.next_run(); then it delivers the other 16 columns, under the same numbers of quads, and calls sink.next_run() again.
//
// The vectors have the type Sink::Vector. It is u8x64, which holds all 16 rows. On processors where that takes several
// registers, it may hold the rows of one register, and `panel` then points to the first of these rows.
//
// A sink multiplies the weights at once, or keeps them in L1 as a tile, for many tokens (kernels/sinks.h). Integer formats with
// codebooks have another decoder of panels: formats/grid.h.
//
// A FLOAT format has only: static f32x16 read(const uint8_t*), which reads 16 columns of a row; and static void
// dequantize(const uint8_t* row, int64_t n, float* x).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "simd/simd.h"

namespace clarion {

// For lambdas that unrolled() calls. They must be inline: a call would push vectors out of their registers.
#define CLARION_INLINE __attribute__((always_inline))

// Calls body.template operator()<i>() for i = 0 .. n-1, unrolled: an array stays in registers only if its indices are constant.
template <int n, typename Body>
[[gnu::always_inline]] inline void unrolled(Body&& body) {
    [&]<int... i>(std::integer_sequence<int, i...>)
        CLARION_INLINE { (body.template operator()<i>(), ...); }(std::make_integer_sequence<int, n>{});
}

// Whether a vector of 16 rows takes several registers. Then the accumulators of the header in native/simd have a member type
// OneRegister: the sums of the rows that one register holds. Its member type Vector holds the weights of these rows.
template <typename Accumulator>
concept takes_registers = requires { typename Accumulator::OneRegister; };

// Calls body(i) for i = 0 .. n-1. The loop is unrolled where a vector of 16 rows is one register or two. Where it is more, one
// step is already long.
template <int n, typename Body>
[[gnu::always_inline]] inline void steps(const Body& body) {
    if constexpr (takes_registers<simd::high_accumulator>)
        for (int i = 0; i < n; ++i) body(i);
    else
        unrolled<n>([&]<int i>() CLARION_INLINE { body(std::integral_constant<int, i>{}); });
}

// Reads a number of a file. Files are little-endian on every processor, so every decoder reads numbers with these functions.
// Bytes, and vectors of bytes (simd::u8x64), have no order.
template <typename T>
T from_file(const uint8_t* p) {
    uint8_t bytes[sizeof(T)];
    std::memcpy(bytes, p, sizeof(T));
    if constexpr (std::endian::native == std::endian::big) std::reverse(bytes, bytes + sizeof(T));
    return std::bit_cast<T>(bytes);
}
inline uint16_t load_u16(const uint8_t* p) { return from_file<uint16_t>(p); }
inline uint32_t load_u32(const uint8_t* p) { return from_file<uint32_t>(p); }

// Calls use(p) with 16 numbers of a file. p points into the file where the processor has the same byte order, else to a copy.
template <typename T, typename Use>
[[gnu::always_inline]] inline simd::f32x16 with_numbers(const uint8_t* row, Use use) {
    if constexpr (std::endian::native == std::endian::little) {
        return use(reinterpret_cast<const T*>(row));
    } else {
        alignas(64) T x[16];
        for (size_t i = 0; i < 16; ++i) x[i] = from_file<T>(row + sizeof(T) * i);
        return use(x);
    }
}
// Loads a vector of all 16 rows, or one of fewer registers, of the rows that these hold.
template <typename Vector>
[[gnu::always_inline]] inline Vector load_rows(const uint8_t* p) {
    if constexpr (std::is_same_v<Vector, simd::u8x64>) {
        return simd::load_bytes(p);
    } else {
        Vector v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
}
template <typename Vector>
[[gnu::always_inline]] inline void store_rows(uint8_t* p, Vector v) {
    if constexpr (std::is_same_v<Vector, simd::u8x64>)
        simd::store_bytes(p, v);
    else
        std::memcpy(p, &v, sizeof v);
}
// Bytes at .. at + 3 of a panel's rows.
template <typename Vector = simd::u8x64>
[[gnu::always_inline]] inline auto load_quad(const uint8_t* panel, int64_t at) {
    return simd::as_i32(load_rows<Vector>(panel + 16 * at));
}
// Bytes at .. at + 15 of a panel's rows, four of each in a vector.
template <typename Vector>
[[gnu::always_inline]] inline void load_quads(const uint8_t* panel, int64_t at, Vector* quads) {
    unrolled<4>([&]<int i>() CLARION_INLINE { quads[i] = load_rows<Vector>(panel + 16 * at + 64 * i); });
}
// The 16-bit float at `at` of every row, for formats whose blocks are no whole fours of bytes: they lie row after row.
inline simd::f32x16 first_f16(const uint8_t* panel, int64_t at) {
    return with_numbers<uint16_t>(panel + 16 * at, [](const uint16_t* x) { return simd::load_f16(x); });
}
inline float f16_at(const uint8_t* p) { return simd::f16_to_f32(load_u16(p)); }

// The same scale for each of a block's n groups.
template <int n>
void repeat_scale(float value, float* scale) {
    for (int i = 0; i < n; ++i) scale[i] = value;
}

// 2n columns from n bytes: the low nibbles, then the high ones.
template <int n>
void unpack_nibbles(const uint8_t* __restrict q, uint8_t* __restrict u) {
    for (int i = 0; i < n; ++i) {
        u[i] = q[i] & 15;
        u[n + i] = q[i] >> 4;
    }
}

// 256 columns from 64 bytes. The lowest two bits of 32 bytes are 32 columns, the next two bits are the next 32 columns.
inline void unpack_pairs(const uint8_t* __restrict q, uint8_t* __restrict u) {
    for (int half = 0; half < 2; ++half)
        for (int k = 0; k < 4; ++k)
            for (int i = 0; i < 32; ++i) u[128 * half + 32 * k + i] = q[32 * half + i] >> 2 * k & 3;
}

template <int g, typename Vector>
Vector pair_of(Vector q) {
    return simd::bit_and(simd::as_u8(simd::shift_right<2 * g>(simd::as_i32(q))), simd::set1_u8(3));
}
// The same for 16 rows: 128 columns from 32 bytes of each, as one unit of a panel decoder.
template <typename Sink>
[[gnu::always_inline]] inline void put_pairs(const uint8_t* panel, int64_t at, Sink& sink) {
    sink.begin();
    for (int run = 0; run < 2; ++run) {
        typename Sink::Vector q[4];
        load_quads(panel, at + 16 * run, q);
        unrolled<2>([&]<int c>() CLARION_INLINE {
            unrolled<4>([&]<int g>() CLARION_INLINE {
                sink.template put2<8 * g + 2 * c>(pair_of<g>(q[2 * c]), pair_of<g>(q[2 * c + 1]));
            });
        });
        sink.next_run();
    }
    sink.finish();
}

// The 16-bit float at `offset + b * stride` of every row, for each of a block's n groups: out[b * n + g][r].
template <int n = 1>
void gather_f16(const uint8_t* panel, int64_t offset, int64_t stride, int64_t blocks, float* out) {
    for (int64_t b = 0; b < blocks; ++b)
        for (int g = 0; g < n; ++g, out += 16) simd::store(out, first_f16(panel, offset + b * stride));
}
// The scale and the minimum of each block, for formats whose blocks begin with these two 16-bit floats.
inline void first_pairs(const uint8_t* panel, int64_t blocks, int64_t stride, float* scale, float* neg_min) {
    for (int64_t b = 0; b < blocks; ++b) {
        const simd::u8x64 pair = simd::load_bytes(panel + 16 * stride * b);
        simd::store(scale + 16 * b, simd::f16_low(pair));
        simd::store(neg_min + 16 * b, simd::f16_high(pair));
    }
}

// Delivers the low nibbles of two vectors as quads low and low + 1, and the high nibbles as quads high and high + 1.
template <int low, int high, typename Sink>
[[gnu::always_inline]] inline void put_nibbles2(typename Sink::Vector q0, typename Sink::Vector q1,
                                                Sink& sink) {
    if constexpr (requires { sink.template put_nibbles2<low, high>(q0, q1); }) {
        sink.template put_nibbles2<low, high>(q0, q1);
    } else {
        const simd::u8x64 nibble = simd::set1_u8(15);
        sink.template put2<low>(simd::bit_and(q0, nibble), simd::bit_and(q1, nibble));
        sink.template put2<high>(simd::shift_right_u8<4>(q0), simd::shift_right_u8<4>(q1));
    }
}
// A unit of 32 columns from 16 bytes: the low nibbles, then the high ones.
template <typename Sink>
[[gnu::always_inline]] inline void put_nibbles(const uint8_t* panel, int64_t at, Sink& sink) {
    sink.begin();
    typename Sink::Vector q[4];
    load_quads(panel, at, q);
    put_nibbles2<0, 4>(q[0], q[1], sink);
    put_nibbles2<2, 6>(q[2], q[3], sink);
    sink.finish();
}
// A unit of 32 columns from as many signed bytes.
template <typename Sink>
[[gnu::always_inline]] inline void put_signed_bytes(const uint8_t* panel, int64_t at, Sink& sink) {
    sink.begin();
    const simd::u8x64 sign = simd::set1_u8(0x80);
    unrolled<2>([&]<int half>() CLARION_INLINE {
        typename Sink::Vector q[4];
        load_quads(panel, at + 16 * half, q);
        sink.template put2<4 * half>(simd::bit_xor(q[0], sign), simd::bit_xor(q[1], sign));
        sink.template put2<4 * half + 2>(simd::bit_xor(q[2], sign), simd::bit_xor(q[3], sign));
    });
    sink.finish();
}

// Byte j of each row's four, unsigned or signed.
template <int j, typename Vector>
Vector byte_of(Vector v) {
    return simd::bit_and(simd::shift_right<8 * j>(v), simd::set1(int32_t{0xff}));
}
template <int j>
simd::i32x16 signed_byte_of(simd::i32x16 v) {
    return simd::shift_right_signed<24>(simd::shift_left<24 - 8 * j>(v));
}

}  // namespace clarion
