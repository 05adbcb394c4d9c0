// One position's keys and values, into the matrices of a page (machine/kv_format.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/kv_format.h"

namespace clarion {

// x [dim] of one head to position `slot` of the page's matrix.
//
// f16 and bf16 round to nearest, ties to even. q8_0 and q4_0 choose a block's scale as GGUF does (greatest magnitude
// over 127; the element of greatest magnitude over -8), round it to f16 and divide by what is stored: an element errs
// by half of the scale, and 4-bit elements near the other end of the range by a whole one. A block that is not finite,
// or too large for a scale in f16, gets a NaN scale: whatever sees it is NaN.
void store_keys(KvFormat format, std::byte* matrix, int64_t dim, int64_t slot, const float* x);
void store_values(KvFormat format, std::byte* matrix, int64_t dim, int64_t slot, const float* x);

}  // namespace clarion
