// AVX-512 VNNI with the integer tiles of AMX (Sapphire Rapids and later): one token as avx512vnni.h, many by tiles.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "simd/avx512vnni_products.h"
#include "simd/bf16_products.h"

namespace clarion::simd {

// Assembly, since compilers' functions want a register's number to be typed in.
namespace tiles {

// Linux gives a process the registers' 8 KB of state when it asks for them, once for all of its threads. Where it refuses,
// or the processor has none, vectors do all of the work.
inline bool granted() {
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
    static const bool yes = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return yes;
}
template <typename Shape>
void configure(const Shape& shape) {
    __asm__ volatile("ldtilecfg %0" : : "m"(shape));
}
inline void release() { __asm__ volatile("tilerelease"); }
template <int n>
void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(n));
}
template <int n>
void load(const void* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(n) : "memory");
}
template <int n>
void store(void* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(n) : "memory");
}
template <int sum, int a, int w>
void dot() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(w));
}

}  // namespace tiles

}  // namespace clarion::simd

#include "simd/amx_products.h"

namespace clarion::simd {

// Tiles leave fifteen tokens at most. Floats are multiplied by vectors as ever.
inline constexpr int tile_fast = 4, tile_high = 4, tile_f32 = 12;

// Does products of 8-bit integers, added to 32-bit sums, as fast as this instruction set can: four sums, for a latency of 52
// cycles at one product in 16.
inline double multiply_burst(int rounds, int32_t* keep) {
    *keep = 0;
    if (!tiles::granted()) return 0;
    alignas(64) int32_t sum[256];
    tiles::configure(tiles::Shape(64));
    tiles::zero<2>();
    tiles::zero<3>();
    for (int i = 0; i < rounds; ++i) {
        tiles::dot<0, 2, 3>();
        tiles::dot<1, 2, 3>();
        tiles::dot<4, 2, 3>();
        tiles::dot<5, 2, 3>();
    }
    tiles::store<0>(sum, 64);
    tiles::release();
    *keep = sum[0];
    return 4.0 * 16 * 16 * 64 * rounds;
}

}  // namespace clarion::simd
