// Single operations outside any plan: for tests, tools, and to know what the machine does at best.
#pragma once

#include <cstdint>

#include "machine/op.h"

namespace clarion {

struct FormatInfo {
    int id;  // GGUF type id
    const char* name;
    int64_t block, bytes;  // weights and bytes of a block
};
int n_formats();
FormatInfo format_info(int i);

bool multiplies_bf16();
int64_t buffer_row_bytes(Kind kind, int64_t width);

// These check sizes and throw std::invalid_argument.
void dequantize(int type_id, const uint8_t* data, int64_t n_bytes, int64_t n, float* x);
void linear(int type_id, const uint8_t* data, int64_t n_bytes, int64_t rows, int64_t cols, bool panels,
            const float* x, int64_t n_tokens, Kind kind, float* y);
// Rows of `cols` weights, 16 at a time, to as many bytes of panels (kernels/panel.h).
void interleave(int type_id, int64_t cols, const uint8_t* rows, uint8_t* panels, int64_t n_bytes);
// Whether a matrix of so many rows may lie as panels.
bool can_be_panels(int type_id, int64_t rows);

double measure_bandwidth(int threads, double seconds, int64_t bytes);
double measure_multiply(int threads, double seconds);

}  // namespace clarion
