// Rows of float32 weights as blocks of a weight format.
//
// A format's quantizer takes runs of whole blocks that may come from several rows, since blocks never cross rows.
// Each block's bytes depend on its weights and their importance alone, so neither threads nor the cuts between
// runs show in the result.
#pragma once

#include <atomic>
#include <cstdint>

namespace clarion::quantize {

// Consecutive blocks of a matrix. `x` is their first weight.
struct Run {
    const float* x;
    int64_t n_blocks;
    const float* importance;  // [cols], or null: all weights count alike
    int64_t column;           // of the first weight
    int64_t cols;
    uint8_t* out;
};

struct Quantizer {
    int id;
    int block, bytes;  // weights and bytes of a block
    float limit;       // no weight may be larger in magnitude
    void (*quantize)(const Run&);
};

// The quantizer of a type id, or null.
const Quantizer* find(int id);
const Quantizer* quantizers(int& count);

// The weights to be quantized: [rows, cols] of float32, or of 16-bit floats, which are widened piece by piece.
enum class Source { f32, f16, bf16 };
struct Matrix {
    const void* x;
    Source source;
    int64_t rows, cols;
    const float* importance;  // [cols], or null
};

// Quantizes a matrix to out [rows, cols / block * bytes] with `threads` threads and returns the position of the
// first weight that is not finite or exceeds the limit, or -1. `waiting` is called now and then on the calling
// thread, which does not compute; if it returns false, work ends early. Throws std::system_error if no thread can
// be started.
int64_t run(const Quantizer& quantizer, const Matrix& matrix, int threads, uint8_t* out, bool (*waiting)());

}  // namespace clarion::quantize
