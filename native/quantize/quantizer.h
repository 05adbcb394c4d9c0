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

// What kept a matrix from being quantized: the first such weight, by its position in x.
struct Fault {
    int64_t position = -1;  // or -1: none
};

// Quantizes x [rows, cols] to out [rows, cols / block * bytes] with `threads` threads. `waiting` is called now
// and then on the calling thread, which does not compute; if it returns false, work ends early.
// Finds weights that are not finite or exceed the limit. Throws std::system_error if no thread can be started.
Fault run(const Quantizer& quantizer, const float* x, int64_t rows, int64_t cols, const float* importance,
          int threads, uint8_t* out, bool (*waiting)());

}  // namespace clarion::quantize
