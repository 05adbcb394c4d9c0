#pragma once

#include <cstdint>
#include <vector>

#include "machine/op.h"

namespace clarion {

// A one-dimensional weight of n elements as floats. Throws std::invalid_argument if it has another size.
std::vector<float> vector_weight(const OpSpec& spec, const Weight& weight, int64_t n);

// The same of a weight that may be absent: then n times `otherwise`.
std::vector<float> vector_or(const OpSpec& spec, const Weight* weight, int64_t n, float otherwise);

// y = x / sqrt(mean(x^2) + eps) * gain over rows of `width` (Zhang and Sennrich 2019). A gain of ones
// changes no bit: it stands for none.
class RmsNorm {
  public:
    RmsNorm(std::vector<float> gain, float eps) : gain_(std::move(gain)), eps_(eps) {}
    // y may be x. The sum runs over 16 lanes, then over the lanes: an order that depends on the width alone.
    void apply(const float* x, float* y) const;

  private:
    std::vector<float> gain_;  // [width]
    float eps_;
};

}  // namespace clarion
