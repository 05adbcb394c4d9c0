// What another extension module wants to be done with the results of a run, on the threads that made them: both modules
// are compiled with this struct. The threads still look for work then; later they would have to be woken.
#pragma once

#include <cstdint>

namespace clarion {

struct Epilogue {
    static constexpr const char* capsule = "clarion.epilogue";

    int64_t n;  // items, of which none must throw
    void (*item)(void* context, int64_t item, int thread);
    void* context;
};

}  // namespace clarion
