// Vectors of the compiler (GCC, Clang), no intrinsics. One of 16 rows is some of them, of register_bytes each, which the
// header that includes this one knows. Compilers do cut longer vectors into registers, but GCC keeps those in memory: three
// times the machine code. Weights are decoded, and multiplied with one token, a register of rows at a time
// (kernels/per_register.h).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "simd/byte_quads.h"
#include "simd/half.h"

namespace clarion::simd {

inline constexpr int lanes = 16;

using F32 [[gnu::vector_size(register_bytes)]] = float;
using I32 [[gnu::vector_size(register_bytes)]] = int32_t;
using U32 [[gnu::vector_size(register_bytes)]] = uint32_t;
using I16 [[gnu::vector_size(register_bytes)]] = int16_t;
using U16 [[gnu::vector_size(register_bytes)]] = uint16_t;
using U8 [[gnu::vector_size(register_bytes)]] = uint8_t;
using QuarterU8 [[gnu::vector_size(register_bytes / 4)]] = uint8_t;
using HalfU16 [[gnu::vector_size(register_bytes / 2)]] = uint16_t;

// n registers, in structs, which every calling convention knows how to pass.
template <int n>
struct Floats {
    F32 v[n];
};
template <int n>
struct Words {
    I32 v[n];
};
template <int n>
struct Bytes {
    U8 v[n];
};
inline constexpr int registers = 64 / register_bytes, rows = register_bytes / 4;  // of a register
using f32x16 = Floats<registers>;
using i32x16 = Words<registers>;
using u8x64 = Bytes<registers>;

// Result { op(0), op(1), .. }, a register each.
template <typename Result, typename Op>
[[gnu::always_inline]] inline Result each(Op op) {
    return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        return Result{{op(i)...}};
    }(std::make_integer_sequence<int, sizeof(Result) / register_bytes>{});
}
// x in every element.
template <typename Vector, typename Element>
[[gnu::always_inline]] inline Vector all(Element x) {
    return [&]<size_t... i>(std::index_sequence<i...>) __attribute__((always_inline)) {
        return Vector{(static_cast<void>(i), x)...};
    }(std::make_index_sequence<sizeof(Vector) / sizeof(Element)>{});
}
template <typename To, typename From>
[[gnu::always_inline]] inline To vector_from(const From* p) {
    To r;
    std::memcpy(&r, p, sizeof r);
    return r;
}

// ---- f32x16

inline f32x16 load(const float* p) { return vector_from<f32x16>(p); }
inline void store(float* p, f32x16 x) { std::memcpy(p, &x, 64); }
inline f32x16 load_first(const float* p, int n) {
    f32x16 r{};
    std::memcpy(&r, p, 4 * static_cast<size_t>(n));
    return r;
}
inline void store_first(float* p, f32x16 x, int n) { std::memcpy(p, &x, 4 * static_cast<size_t>(n)); }
inline f32x16 set1(float x) {
    return each<f32x16>([=](int) { return all<F32>(x); });
}
inline f32x16 zero() { return f32x16{}; }
inline f32x16 add(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] + y.v[i]; });
}
inline f32x16 sub(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] - y.v[i]; });
}
inline f32x16 mul(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] * y.v[i]; });
}
inline f32x16 div(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] / y.v[i]; });
}
inline f32x16 max(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] > y.v[i] ? x.v[i] : y.v[i]; });
}
inline f32x16 min(f32x16 x, f32x16 y) {
    return each<f32x16>([&](int i) { return x.v[i] < y.v[i] ? x.v[i] : y.v[i]; });
}
inline f32x16 abs(f32x16 x) {
    return each<f32x16>([&](int i) { return (F32)((I32)x.v[i] & INT32_MAX); });
}
inline f32x16 fma(f32x16 x, f32x16 y, f32x16 z) {
    return each<f32x16>([&](int i) { return x.v[i] * y.v[i] + z.v[i]; });
}
// What holds floats in the tile of kernels/float_product.h.
using f32_register = f32x16;
inline f32_register load_register(const float* p) { return load(p); }
inline void store_register(float* p, f32_register x) { store(p, x); }
inline constexpr int float_rows = 2, float_tokens = 2;
inline float reduce_add(f32x16 x) {
    float e[16];
    store(e, x);
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) e[i] += e[i + w];
    return e[0];
}
inline float reduce_max(f32x16 x) {
    float e[16];
    store(e, x);
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; ++i) e[i] = e[i] > e[i + w] ? e[i] : e[i + w];
    return e[0];
}

// ---- i32x16

inline i32x16 load(const int32_t* p) { return vector_from<i32x16>(p); }
inline void store(int32_t* p, i32x16 x) { std::memcpy(p, &x, 64); }
inline i32x16 set1(int32_t x) {
    return each<i32x16>([=](int) { return all<I32>(x); });
}
template <int n, int m>
inline Words<n> add(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return (I32)((U32)x.v[i] + (U32)y.v[i]); });
}
template <int n, int m>
inline Words<n> sub(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return (I32)((U32)x.v[i] - (U32)y.v[i]); });
}
template <int n, int m>
inline Words<n> bit_and(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return x.v[i] & y.v[i]; });
}
template <int n, int m>
inline Words<n> bit_or(Words<n> x, Words<m> y) {
    return each<Words<n>>([&](int i) { return x.v[i] | y.v[i]; });
}
template <int by, int n>
inline Words<n> shift_left(Words<n> x) {
    return each<Words<n>>([&](int i) { return (I32)((U32)x.v[i] << by); });
}
template <int by, int n>
inline Words<n> shift_right(Words<n> x) {
    return each<Words<n>>([&](int i) { return (I32)((U32)x.v[i] >> by); });
}
template <int by, int n>
inline Words<n> shift_right_signed(Words<n> x) {
    return each<Words<n>>([&](int i) { return x.v[i] >> by; });
}
inline f32x16 to_f32(i32x16 x) {
    return each<f32x16>([&](int i) { return __builtin_convertvector(x.v[i], F32); });
}
// Adding 2^23 to what is smaller rounds it to an integer, ties to even; larger numbers are integers. This and what reads
// 16-bit floats is a call: most of the code that it would be part of is not much longer.
[[gnu::noinline]] inline i32x16 to_i32(f32x16 x) {
    const F32 magic = all<F32>(0x1p23f), limit = all<F32>(0x1p31f);
    return each<i32x16>([&](int i) {
        const I32 bits = (I32)x.v[i];
        const F32 size = (F32)(bits & INT32_MAX);
        F32 rounded = (size + magic) - magic;
        rounded = size < magic ? rounded : size;
        const I32 fits = size < limit;
        const I32 magnitude = __builtin_convertvector((F32)((I32)rounded & fits), I32);
        const I32 sign = bits >> 31;
        const I32 value = (magnitude ^ sign) - sign;
        return fits ? value : all<I32>(INT32_MIN);
    });
}
inline f32x16 as_f32(i32x16 x) { return std::bit_cast<f32x16>(x); }
inline i32x16 as_i32(f32x16 x) { return std::bit_cast<i32x16>(x); }
inline void store_i8(int8_t* p, i32x16 x) {
    int32_t e[16];
    store(e, x);
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(e[i]);
}

// ---- 16-bit floats in memory

// Halves in the low 16 bits of each lane. Numbers and subnormals: 2^112 moves the exponent's bias. Infinity and NaN,
// where the half's exponent is all ones, get such an exponent.
inline F32 widen_f16(U32 h) {
    const U32 magnitude = h & 0x7fffu;
    const F32 finite = (F32)(magnitude << 13) * 0x1p112f;
    const U32 special = (U32{} - ((magnitude + 0x0400u) >> 15)) & 0x7f800000u;
    return (F32)((U32)finite | special | (h & 0x8000u) << 16);
}
inline U32 load_u16(const uint16_t* p) { return __builtin_convertvector(vector_from<HalfU16>(p), U32); }
inline i32x16 load_u8(const uint8_t* p) {
    return each<i32x16>(
        [=](int i) { return __builtin_convertvector(vector_from<QuarterU8>(p + rows * i), I32); });
}
[[gnu::noinline]] inline f32x16 load_f16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return widen_f16(load_u16(p + rows * i)); });
}
inline void store_f16(uint16_t* p, f32x16 x) {
    float e[16];
    store(e, x);
    for (int i = 0; i < 16; ++i) p[i] = f32_to_f16(e[i]);
}
inline f32x16 load_bf16(const uint16_t* p) {
    return each<f32x16>([=](int i) { return (F32)(load_u16(p + rows * i) << 16); });
}

// ---- u8x64

inline u8x64 load_bytes(const void* p) { return vector_from<u8x64>(p); }
inline void store_bytes(void* p, u8x64 x) { std::memcpy(p, &x, 64); }
inline u8x64 set1_u8(uint8_t x) {
    return each<u8x64>([=](int) { return all<U8>(x); });
}
template <int n, int m>
inline Bytes<n> bit_and(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return x.v[i] & y.v[i]; });
}
template <int n, int m>
inline Bytes<n> bit_or(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return x.v[i] | y.v[i]; });
}
template <int n, int m>
inline Bytes<n> bit_xor(Bytes<n> x, Bytes<m> y) {
    return each<Bytes<n>>([&](int i) { return x.v[i] ^ y.v[i]; });
}
template <int by, int n>
inline Bytes<n> shift_left_u8(Bytes<n> x) {
    return each<Bytes<n>>([&](int i) { return x.v[i] << by; });
}
template <int by, int n>
inline Bytes<n> shift_right_u8(Bytes<n> x) {
    return each<Bytes<n>>([&](int i) { return x.v[i] >> by; });
}
inline u8x64 repeat_16(const uint8_t* p) {
    u8x64 r;
    for (int i = 0; i < 4; ++i) std::memcpy(reinterpret_cast<uint8_t*>(&r) + 16 * i, p, 16);
    return r;
}
// A register of bytes, by a table of 16 that a register holds again and again. A header may have an overload that is no
// template.
template <typename Register>
[[gnu::noinline]] Register look_up_bytes(Register table, Register index) {
    uint8_t from[sizeof table], at[sizeof index];
    std::memcpy(from, &table, sizeof table);
    std::memcpy(at, &index, sizeof index);
    for (uint8_t& i : at) i = from[i];
    return vector_from<Register>(at);
}
template <int n>
inline Bytes<n> look_up(u8x64 table, Bytes<n> index) {
    return each<Bytes<n>>([&](int i) { return look_up_bytes(table.v[i], index.v[i]); });
}
// A row's first byte is the lowest of its number, whatever the processor's order.
[[gnu::always_inline]] inline U32 lowest_first(U32 x) {
    if constexpr (std::endian::native == std::endian::little) return x;
    return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        return (U32)__builtin_shufflevector((U8)x, (U8)x, i ^ 3 ...);
    }(std::make_integer_sequence<int, register_bytes>{});
}
template <int n>
inline Words<n> as_i32(Bytes<n> x) {
    return each<Words<n>>([&](int i) { return (I32)lowest_first((U32)x.v[i]); });
}
template <int n>
inline Bytes<n> as_u8(Words<n> x) {
    return each<Bytes<n>>([&](int i) { return (U8)lowest_first((U32)x.v[i]); });
}
[[gnu::noinline]] inline f32x16 f16_low(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(lowest_first((U32)x.v[i]) & 0xffffu); });
}
[[gnu::noinline]] inline f32x16 f16_high(u8x64 x) {
    return each<f32x16>([&](int i) { return widen_f16(lowest_first((U32)x.v[i]) >> 16); });
}

// 16 rows of a matrix, `stride` bytes apart.
struct Rows16 {
    const uint8_t* base;
    int64_t stride;
};
inline void transpose_16(Rows16 rows, int64_t offset, u8x64 out[4]) {
    uint8_t columns[4][64];
    for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 4; ++c)
            std::memcpy(columns[c] + 4 * r, rows.base + r * rows.stride + offset + 4 * c, 4);
    for (int c = 0; c < 4; ++c) out[c] = load_bytes(columns[c]);
}

// Bytes of the row's number that its four lowest flags say, and its next four.
template <int n>
[[gnu::always_inline]] inline void change_flagged(Bytes<n>& w0, Bytes<n>& w1, Words<n> flags, uint8_t flip,
                                                  uint8_t more) {
    const auto change = [=](U8 w, U32 bytes, uint32_t bits) {
        const U8 set = (U8)((U8)lowest_first(bytes & bits) != 0);
        return (U8)((w ^ (set & flip)) + (set & more));
    };
    for (int i = 0; i < n; ++i) {
        U32 bytes = (U32)flags.v[i] & 0xffu;
        bytes |= bytes << 8;
        bytes |= bytes << 16;
        w0.v[i] = change(w0.v[i], bytes, 0x08040201u);
        w1.v[i] = change(w1.v[i], bytes, 0x80402010u);
    }
}

// Groups of columns whose sums stay in registers beside what a panel decoder needs: how many there are is not known here.
inline constexpr int live_groups = 1;
inline constexpr int live_groups_high = 1;  // with 16-bit activations

// ---- products

// The even and the odd ones of a row's four bytes, as 16 bits.
struct Halves {
    I16 even, odd;
};
// Weights are taken as w - 127.
[[gnu::always_inline]] inline Halves centred(U8 w) {
    const U16 u = (U16)lowest_first((U32)w), center = all<U16>(uint16_t{127});
    return {(I16)((u & 0xff) - center), (I16)((u >> 8) - center)};
}
// Four signed activations, in every row.
[[gnu::always_inline]] inline Halves activations(const uint8_t* quad) {
    uint32_t number;
    std::memcpy(&number, quad, 4);
    if constexpr (std::endian::native == std::endian::big) number = __builtin_bswap32(number);
    const auto a = (I16)all<U32>(number);
    return {(I16)((U16)a << 8) >> 8, a >> 8};
}

inline constexpr int32_t high_limit = 32639;

// Weights from -127 to 128 times activations from -128 to 127: two products, -32768 at least and 32512 at most, fit into 16
// bits, and each half of a row's 32 bits sums two columns. Of 16-bit activations the upper and the lower bytes
// (simd/byte_quads.h) have sums of their own: few processors multiply 32 bits as fast as 16.
template <int n, int bytes>
struct Sums {
    using OneRegister = Sums<1, bytes>;
    using Vector = Bytes<n>;
    static constexpr int32_t bias = 127;
    static constexpr int quad_bytes = 4 * bytes;
    Words<n> sum[bytes];  // the last of the lowest bytes

    static Sums start(int32_t initial) {
        Sums r{};
        r.sum[bytes - 1] = each<Words<n>>([=](int) { return all<I32>(initial); });
        return r;
    }
    [[gnu::always_inline]] void dot(Vector w, const uint8_t* quad) {
        Halves a[bytes];
        for (int b = 0; b < bytes; ++b) a[b] = activations(quad + 4 * b);
        for (int i = 0; i < n; ++i) {
            const Halves s = centred(w.v[i]);
            for (int b = 0; b < bytes; ++b) {
                const I32 products = (I32)(s.even * a[b].even + s.odd * a[b].odd);
                sum[b].v[i] += ((I32)((U32)products << 16) >> 16) + (products >> 16);
            }
        }
    }
    [[gnu::always_inline]] void dot2(Vector w0, Vector w1, const uint8_t* quads) {
        dot(w0, quads);
        dot(w1, quads + quad_bytes);
    }
    Words<n> total() const {
        if constexpr (bytes == 1) return sum[0];
        return add(shift_left<8>(sum[0]), sum[bytes - 1]);
    }
};
template <bool wide>
using fast_accumulator = Sums<registers, 1>;
using high_accumulator = Sums<registers, 2>;

// Tokens share the unpacking of weights; how many registers there are is not known here.
inline constexpr int tile_fast = 2, tile_high = 2, tile_f32 = 2;

// Does products of 8-bit integers, added to 32-bit sums, as Sums does them.
inline double multiply_burst(int rounds, int32_t* keep) {
    u8x64 w = set1_u8(3);
    const uint8_t quads[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    auto first = fast_accumulator<true>::start(0), second = first;
    for (int i = 0; i < rounds; ++i) {
        first.dot2(w, w, quads);
        second.dot2(w, w, quads);
        for (U8& v : w.v) v ^= 1;
    }
    *keep = first.total().v[0][0] ^ second.total().v[0][0];
    return 256.0 * rounds;
}

[[gnu::always_inline]] inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
[[gnu::always_inline]] inline void prefetch_l1(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void pause() {}

}  // namespace clarion::simd
