// Arithmetic on sizes that come from outside.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "machine/message.h"

namespace clarion {

// More elements than any row, matrix side or head can have; products of two such numbers fit into 64 bits.
inline constexpr int64_t most_elements = int64_t{1} << 31;

// Throw std::invalid_argument if a number is negative or the result does not fit; `what` names the size.
int64_t checked_product(std::initializer_list<int64_t> factors, Message what);
int64_t checked_add(int64_t a, int64_t b, Message what);

// Throws std::invalid_argument unless least <= value <= most.
void expect_range(int64_t value, int64_t least, int64_t most, Message what);

}  // namespace clarion
