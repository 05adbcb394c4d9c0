// Kernels called directly, on plain arrays: what tools and tests need of them outside any program.
#pragma once

#include <cstdint>

#include "machine/op.h"

namespace clarion {

// Whether this instruction set multiplies BF16 weights with activations of Kind::bf16.
bool multiplies_bf16();

// These check sizes and throw std::invalid_argument.
void dequantize(int type_id, const uint8_t* data, int64_t n_bytes, int64_t n, float* x);
void linear(int type_id, const uint8_t* data, int64_t n_bytes, int64_t rows, int64_t cols, bool panels,
            const float* x, int64_t n_tokens, Kind kind, float* y);
// Rows of `cols` weights, 16 at a time, to as many bytes of panels (kernels/panel.h).
void interleave(int type_id, int64_t cols, const uint8_t* rows, uint8_t* panels, int64_t n_bytes);
// Whether a matrix of so many rows may lie as panels.
bool can_be_panels(int type_id, int64_t rows);

}  // namespace clarion
