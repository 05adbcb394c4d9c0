#pragma once

#include <string>

#include "machine/kv_cache.h"
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

// Where token t goes: its page and its slot there.
struct TokenSlot {
    int64_t page, slot;

    TokenSlot(const Batch& batch, const PagedState& state, int64_t t) {
        const int64_t position = batch.positions[t];
        page = state.pages[batch.sequences[t] * state.pages_per_sequence + position / KvCache::page_size];
        slot = position % KvCache::page_size;
    }
};

}  // namespace clarion
