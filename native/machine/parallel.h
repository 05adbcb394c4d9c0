// How one extension module lends its threads to another: as a plain table of functions, which both are compiled with.
#pragma once

#include <cstdint>

namespace clarion {

struct Parallel {
    static constexpr const char* capsule = "clarion.parallel";

    void* pool;
    // Calls item(context, 0 .. n-1, thread) on so many threads, and returns when all are done. `item` must not throw.
    void (*each)(void* pool, int threads, int64_t n, void (*item)(void* context, int64_t item, int thread),
                 void* context);
};

}  // namespace clarion
