// Any processor that the compiler's vectors know: VSX of POWER, LSX of LoongArch, SIMD of WebAssembly, the vectors of IBM Z,
// SSE2, all of 16 bytes.
#pragma once

namespace clarion::simd {

inline constexpr int register_bytes = 16;

}  // namespace clarion::simd

#include "simd/compiler_vectors.h"
