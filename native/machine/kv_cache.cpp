#include "machine/kv_cache.h"

#include <cstring>

#include "machine/checked.h"

namespace clarion {

namespace {

int64_t padded(int64_t n) { return (n + KvCache::lanes - 1) / KvCache::lanes * KvCache::lanes; }

}  // namespace

KvCache::KvCache(std::vector<Layer> layers, int64_t pages, Store store)
    : layers_(std::move(layers)), pages_(pages), bytes_(0), store_(store) {
    expect_range(pages, 1, INT32_MAX, {"pages"});
    for (const Layer& layer : layers_) {
        expect_range(layer.n_head, 1, most_elements, {"heads of a layer"});
        expect_range(layer.dim_k, 1, most_elements, {"dim_k of a layer"});
        expect_range(layer.dim_v, 1, most_elements, {"dim_v of a layer"});
        offset_.push_back(bytes_);
        head_bytes_.push_back(page_size * (layer.dim_k + padded(layer.dim_v)) * element_bytes());
        const int64_t bytes = checked_product({pages, layer.n_head, head_bytes_.back()}, {"cache"});
        bytes_ = checked_add(bytes_, bytes, {"cache"});
    }
    memory_ = std::make_unique<ZeroMemory>(bytes_);
}

void KvCache::copy_page(int64_t source, int64_t destination) {
    for (const int64_t page : {source, destination}) expect_range(page, 0, pages_ - 1, {"page"});
    if (source == destination) return;
    for (size_t l = 0; l < layers_.size(); ++l) {
        const int64_t bytes = layers_[l].n_head * head_bytes_[l];
        const auto index = static_cast<int64_t>(l);
        std::memcpy(keys(index, destination, 0), keys(index, source, 0), static_cast<size_t>(bytes));
    }
}

}  // namespace clarion
