// Keys and values of all layers, in pages of 64 positions.
//
// A page holds, for each layer and each head, the two matrices that attention reads, in vectors of 16 lanes:
//
//     keys    [64/16][dim_k][16 positions]        scores: the sum over dim_k runs down the vectors
//     values  [dim_v/16 rounded up][64][16 dims]  output: the sum over positions runs down the vectors
//
// so both are read in order, both products are the same loop (kernels/attention.cpp), and no sum crosses
// lanes. The lanes of a value's last vector beyond dim_v are zero. Elements are f16, rounded to nearest, or
// f32.
//
// Which sequence owns which page is not known here. Untouched pages cost no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "machine/memory.h"

namespace clarion {

class KvCache {
  public:
    static constexpr int64_t page_size = 64, lanes = 16;

    enum class Store { f16, f32 };
    struct Layer {
        int64_t n_head, dim_k, dim_v;
    };

    // Throws std::invalid_argument for sizes that are not positive or too large, std::bad_alloc.
    KvCache(std::vector<Layer> layers, int64_t pages, Store store);

    const std::vector<Layer>& layers() const { return layers_; }
    int64_t pages() const { return pages_; }
    Store store() const { return store_; }
    int64_t bytes() const { return bytes_; }

    // Where the matrices begin; their elements are uint16_t or float, as store() says.
    std::byte* keys(int64_t layer, int64_t page, int64_t head) const {
        const auto l = static_cast<size_t>(layer);
        return memory_->data() + offset_[l] + (page * layers_[l].n_head + head) * head_bytes_[l];
    }
    std::byte* values(int64_t layer, int64_t page, int64_t head) const {
        return keys(layer, page, head) +
               page_size * layers_[static_cast<size_t>(layer)].dim_k * element_bytes();
    }
    int64_t element_bytes() const { return store_ == Store::f16 ? 2 : 4; }

    // Copies a page in all layers, for a sequence that is about to change a page it shares.
    // Throws std::invalid_argument for pages outside the cache.
    void copy_page(int64_t source, int64_t destination);

  private:
    std::vector<Layer> layers_;
    std::vector<int64_t> offset_, head_bytes_;  // by layer
    int64_t pages_, bytes_;
    Store store_;
    std::unique_ptr<ZeroMemory> memory_;
};

}  // namespace clarion
