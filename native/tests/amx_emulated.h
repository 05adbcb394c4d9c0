// amx.h with the tile instructions in plain C++, for processors that have AVX-512 VNNI only. From the operations of the
// "Intel 64 and IA-32 Architectures Software Developer's Manual", LDTILECFG to TDPBSUD.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd/avx512vnni.h"
#include "tests/check.h"

namespace clarion::simd::tiles {

struct Register {
    int rows, bytes;
    uint8_t data[16][64];
};
inline thread_local Register registers[8];
inline thread_local bool configured = false;

inline bool granted() { return true; }
template <typename Shape>
void configure(const Shape& shape) {
    tests::check(shape.palette == 1 && shape.start_row == 0);
    for (int n = 0; n < 8; ++n) {
        tests::check(shape.rows[n] <= 16 && shape.row_bytes[n] <= 64);
        registers[n] = {shape.rows[n], shape.row_bytes[n], {}};
    }
    configured = true;
}
inline void release() { configured = false; }
template <int n>
void zero() {
    tests::check(configured);
    std::memset(registers[n].data, 0, sizeof registers[n].data);
}
template <int n>
void load(const void* p, int64_t stride) {
    zero<n>();
    for (int r = 0; r < registers[n].rows; ++r)
        std::memcpy(registers[n].data[r], static_cast<const uint8_t*>(p) + r * stride,
                    static_cast<size_t>(registers[n].bytes));
}
template <int n>
void store(void* p, int64_t stride) {
    tests::check(configured);
    for (int r = 0; r < registers[n].rows; ++r)
        std::memcpy(static_cast<uint8_t*>(p) + r * stride, registers[n].data[r],
                    static_cast<size_t>(registers[n].bytes));
}
template <int sum, int a, int w>
void dot() {
    const Register &x = registers[a], &y = registers[w];
    Register& z = registers[sum];
    tests::check(configured && x.bytes == 4 * y.rows && z.rows == x.rows && z.bytes == y.bytes);
    for (int i = 0; i < z.rows; ++i)
        for (int j = 0; j < z.bytes / 4; ++j) {
            int32_t total;
            std::memcpy(&total, z.data[i] + 4 * j, 4);
            for (int k = 0; k < x.bytes; ++k)
                total += static_cast<int8_t>(x.data[i][k]) * y.data[k / 4][4 * j + k % 4];
            std::memcpy(z.data[i] + 4 * j, &total, 4);
        }
}

}  // namespace clarion::simd::tiles

#include "simd/amx_products.h"
