// Keys and values of all layers, in pages of 64 positions; how a page is laid out stands in machine/kv_format.h.
//
// A page holds all layers, one after the other, and in a layer each head's keys, then its values: what a longer text
// touches grows evenly, also in huge pages, and a page is copied at once. Which sequence owns which page is not known
// here. Untouched pages cost no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "machine/kv_format.h"
#include "machine/memory.h"

namespace clarion {

class KvCache {
  public:
    static constexpr int64_t page_size = kv_page;

    struct Layer {
        int64_t n_head, dim_k, dim_v;  // without values, dim_v is 0
    };
    struct Formats {
        KvFormat keys, values;
    };

    // Throws std::invalid_argument for sizes that are not positive or too large, std::bad_alloc.
    KvCache(std::vector<Layer> layers, int64_t pages, Formats formats);

    const std::vector<Layer>& layers() const { return layers_; }
    int64_t pages() const { return pages_; }
    Formats formats() const { return formats_; }
    int64_t bytes() const { return pages_ * page_bytes_; }
    int64_t page_bytes() const { return page_bytes_; }

    // Where the matrices of a page begin.
    std::byte* keys(int64_t layer, int64_t page, int64_t head) const {
        const auto l = static_cast<size_t>(layer);
        return memory_->data() + page * page_bytes_ + place_[l].offset + head * place_[l].head_bytes;
    }
    std::byte* values(int64_t layer, int64_t page, int64_t head) const {
        return keys(layer, page, head) + place_[static_cast<size_t>(layer)].key_bytes;
    }

    // The bytes of a page in all layers. Throws std::invalid_argument for a page outside the cache.
    std::span<std::byte> page(int64_t page);

    // Copies a page in all layers, for a sequence that is about to change a page it shares.
    // Throws std::invalid_argument for pages outside the cache.
    void copy_page(int64_t source, int64_t destination);

  private:
    struct LayerLayout {
        int64_t offset, key_bytes, head_bytes;
    };

    std::vector<Layer> layers_;
    std::vector<LayerLayout> place_;  // of a layer within a page
    int64_t pages_, page_bytes_ = 0;
    Formats formats_;
    std::unique_ptr<ZeroMemory> memory_;
};

}  // namespace clarion
