#pragma once

#include <string>

#include "machine/op.h"

namespace clarion {

// The state that an operation uses, a layer of a cache, and the shape it expects there.
struct CacheUse {
    std::string op;
    int64_t state;
    int64_t n_head;            // 0: any number
    int64_t width_k, width_v;  // of all heads together

    // Throws std::invalid_argument if the batch has no such cache.
    void check(const Batch& batch) const;
};

}  // namespace clarion
