// What this machine does at best: the limits that results are held against.
#pragma once

#include <cstdint>

namespace clarion {

// Bytes a second that some threads read together, each from `bytes` of its own.
double measure_bandwidth(int threads, double seconds, int64_t bytes);
// Products of 8-bit integers a second, added to 32-bit sums, that some threads make together.
double measure_multiply(int threads, double seconds);
// Products of floats a second, each added to a sum, that some threads make in registers.
double measure_fma(int threads, double seconds);
// Bytes a second that some threads load, multiply and store again, each `bytes` of its own: counted once.
double measure_change(int threads, double seconds, int64_t bytes);

}  // namespace clarion
