// POWER9 and later, little-endian or not: vectors of the compiler, four registers of VSX each.
#pragma once

#include <altivec.h>

#include <cstdint>

namespace clarion::simd {

using Register [[gnu::vector_size(16)]] = uint8_t;
inline Register look_up_bytes(Register table, Register index) { return vec_perm(table, table, index); }

}  // namespace clarion::simd

#include "simd/portable.h"
