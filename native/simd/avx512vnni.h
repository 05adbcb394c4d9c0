// AVX-512 F/BW/VL/DQ + VNNI.
#pragma once

#include "simd/avx512vnni_products.h"

namespace clarion::simd {

// Accumulators, float sums and a few weights share 32 registers.
inline constexpr int tile_fast = 12, tile_high = 8, tile_f32 = 12;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can. 24 accumulators
// in one block of assembly: latency 5 x 2 a cycle needs 10, and a compiler would move them.
inline double multiply_burst(int rounds, int32_t* keep) {
    const double products = 24.0 * 64.0 * rounds;
    const __m512i w = _mm512_set1_epi8(3), a = _mm512_set1_epi8(5);
    __m512i sum;
    __asm__ volatile(
        "vmovdqa64 %[w], %%zmm30\n\t"
        "vmovdqa64 %[a], %%zmm31\n\t"
        "1:\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm0\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm1\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm2\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm3\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm4\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm5\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm6\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm7\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm8\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm9\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm10\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm11\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm12\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm13\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm14\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm15\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm16\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm17\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm18\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm19\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm20\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm21\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm22\n\t"
        "vpdpbusd %%zmm31, %%zmm30, %%zmm23\n\t"
        "dec %[rounds]\n\t"
        "jnz 1b\n\t"
        "vmovdqa64 %%zmm0, %[sum]\n\t"
        : [sum] "=v"(sum), [rounds] "+r"(rounds)
        : [w] "v"(w), [a] "v"(a)
        : "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
          "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21",
          "zmm22", "zmm23", "zmm30", "zmm31");
    *keep = _mm512_reduce_add_epi32(sum);
    return products;
}

}  // namespace clarion::simd
