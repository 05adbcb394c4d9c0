// LoongArch with LASX (3A5000 and later): vectors of the compiler, two registers of 32 bytes each.
#pragma once

#include <lasxintrin.h>

#include <cstdint>

namespace clarion::simd {

inline constexpr int register_bytes = 32;

using Register [[gnu::vector_size(32)]] = uint8_t;
inline Register look_up_bytes(Register table, Register index) {  // within each 16 bytes
    return (Register)__lasx_xvshuf_b((__m256i)table, (__m256i)table, (__m256i)index);
}

}  // namespace clarion::simd

#include "simd/compiler_vectors.h"
