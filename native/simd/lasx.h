// LoongArch with LASX (3A5000 and later): vectors of the compiler, two registers of 32 bytes each.
#pragma once

namespace clarion::simd {

inline constexpr int register_bytes = 32;

}  // namespace clarion::simd

#include "simd/compiler_vectors.h"
