// Random numbers, the same in every run and on every processor.
#pragma once

#include <cstdint>

namespace clarion::tests {

class Random {
  public:
    explicit Random(uint64_t seed = 1) : state_(seed) {}

    uint32_t bits() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state_ >> 32);
    }
    float next() { return static_cast<float>(static_cast<int32_t>(bits())) * 0x1p-31f; }  // in [-1, 1]

  private:
    uint64_t state_;
};

}  // namespace clarion::tests
