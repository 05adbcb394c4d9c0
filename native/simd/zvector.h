// IBM Z from z14 on: vectors of the compiler, four registers each.
#pragma once

#include <cstdint>

namespace clarion::simd {

using Register [[gnu::vector_size(16)]] = uint8_t;
inline Register look_up_bytes(Register table, Register index) {
#ifdef __clang__
    return __builtin_s390_vperm(table, table, index);
#else
    return __builtin_shuffle(table, index);
#endif
}

}  // namespace clarion::simd

#include "simd/portable.h"
