// Weights on their way out of a file's mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace clarion {

struct CopyJob {
    const uint8_t* from;
    uint8_t* to;
    size_t size;
};

// Copies in pieces, on so many threads. What has been copied out of a file's mapping is let go at once, so that memory
// never holds both.
void copy_all(std::span<const CopyJob> jobs, int threads);

}  // namespace clarion
