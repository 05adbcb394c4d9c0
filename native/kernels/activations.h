// Encodes activations, as machine/encoding.h lays them out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/encoding.h"

namespace clarion {

// Writes x [width] as one row; Kind::f32 copies. For Kind::fast and Kind::high, columns past width read as
// zero.
void encode_row(Kind kind, const float* x, int64_t width, std::byte* row);

}  // namespace clarion
