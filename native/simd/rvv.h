// RISC-V with vectors 1.0: those of the compiler. It is told of no more than 128 bits, sets the length of 16 lanes before
// it uses them, and so the same code runs at every length from there. (RVV's own types have no size, and cannot be
// members of a struct or elements of an array.)
#pragma once

namespace clarion::simd {

inline constexpr int register_bytes = 64;

}  // namespace clarion::simd

#include "simd/compiler_vectors.h"
