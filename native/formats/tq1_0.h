// TQ1_0: 256 ternary weights in 54 bytes.  q: 48 bytes, five weights each | h: 4 bytes, four each | d: f16.
// A byte is a fraction of 256: times 3, its integer part is the first digit and the rest holds the others.
// Digit n of the first 32 bytes are columns 32 n .., of the next 16 columns 160 + 16 n .., of h 240 + 4 n ..
// weight = d * (digit - 1)
#pragma once

#include "formats/format.h"

namespace clarion {

struct TQ1_0 {
    static constexpr int id = 34;
    static constexpr const char* name = "TQ1_0";
    static constexpr int block = 256, bytes = 54;
    static constexpr bool odd_last = true;  // d
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 1, largest = 2;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16<8>(panel, 52, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        // Columns 0-159 are the five digits of 32 bytes; 160-239 those of 16 more; the last 16 four digits of four.
        using Vector = typename Sink::Vector;
        const auto read = [=](int i) { return digits_of(load_rows<Vector>(panel + 16 * (at + 4 * i))); };
        decltype(read(0)) digits[8];
        for (int i = 0; i < 8; ++i) digits[i] = read(i);
        for (int g = 0; g < 5; ++g) {
            sink.begin();
            unrolled<4>([&]<int c>() CLARION_INLINE { put<2 * c>(digits[2 * c], digits[2 * c + 1], sink); });
            sink.finish();
        }
        for (int i = 0; i < 4; ++i) digits[i] = read(8 + i);
        auto last = read(12);
        for (int g = 5; g < 8; ++g) {
            sink.begin();
            put<0>(digits[0], digits[1], sink);
            put<2>(digits[2], digits[3], sink);
            if (g < 7) {
                put<4>(digits[0], digits[1], sink);
                put<6>(digits[2], digits[3], sink);
            } else {
                put<4>(last, last, sink);
                put<6>(last, last, sink);
            }
            sink.finish();
        }
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        repeat_scale<8>(f16_at(block + 52), scale);
        digits<32, 5>(block, u);
        digits<16, 5>(block + 32, u + 160);
        digits<4, 4>(block + 48, u + 240);
    }

  private:
    // Bytes as fractions in base 3: each is multiplied by three, and what leaves it is a digit. Even and odd bytes apart, where
    // the instruction set has nothing better.
    template <typename Vector>
    struct InHalves {
        using Numbers = decltype(simd::as_i32(Vector{}));
        Numbers even, odd;

        InHalves() = default;
        explicit InHalves(Vector bytes) {
            const Numbers q = simd::as_i32(bytes);
            even = low_bytes(q);
            odd = low_bytes(simd::shift_right<8>(q));
        }
        [[gnu::always_inline]] Vector next() {
            const Numbers e = simd::add(even, simd::shift_left<1>(even));
            const Numbers o = simd::add(odd, simd::shift_left<1>(odd));
            even = low_bytes(e);
            odd = low_bytes(o);
            return simd::as_u8(simd::bit_or(low_bytes(simd::shift_right<8>(e)),
                                            simd::bit_and(o, simd::set1(static_cast<int32_t>(0xff00ff00)))));
        }
        static Numbers low_bytes(Numbers v) { return simd::bit_and(v, simd::set1(int32_t{0x00ff00ff})); }
    };
    template <typename Vector>
    static auto digits_of(Vector bytes) {
        if constexpr (requires { ternary_digits(bytes); })
            return ternary_digits(bytes);
        else
            return InHalves<Vector>(bytes);
    }
    template <int quad, typename Digits, typename Sink>
    [[gnu::always_inline]] static void put(Digits& a, Digits& b, Sink& sink) {
        const auto w0 = a.next(), w1 = b.next();
        sink.template put2<quad>(w0, w1);
    }

    template <int n, int each>
    static void digits(const uint8_t* __restrict q, uint8_t* __restrict u) {
        uint8_t rest[n];
        std::memcpy(rest, q, n);
        for (int digit = 0; digit < each; ++digit, u += n)
            for (int i = 0; i < n; ++i) {
                const auto product = static_cast<uint16_t>(rest[i] * 3);
                u[i] = static_cast<uint8_t>(product >> 8);
                rest[i] = static_cast<uint8_t>(product);
            }
    }
};

}  // namespace clarion
