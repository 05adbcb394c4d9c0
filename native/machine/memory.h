// A block of zeros, aligned to a cache line. Pages of it that nobody touches cost no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace clarion {

inline constexpr int64_t memory_alignment = 64;

class ZeroMemory {
  public:
    // Throws std::bad_alloc.
    explicit ZeroMemory(int64_t bytes);
    std::byte* data() const { return data_; }

  private:
    struct Free {
        void operator()(void* p) const;
    };
    std::unique_ptr<void, Free> block_;
    std::byte* data_;  // the first aligned byte of block_
};

}  // namespace clarion
