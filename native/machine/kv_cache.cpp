#include "machine/kv_cache.h"

#include <cstring>

#include "machine/checked.h"

namespace clarion {

KvFormat kv_format(const std::string& name) {
    if (name == "f32") return KvFormat::f32;
    if (name == "f16") return KvFormat::f16;
    if (name == "bf16") return KvFormat::bf16;
    if (name == "q8_0") return KvFormat::q8_0;
    if (name == "q4_0") return KvFormat::q4_0;
    refuse({"cache format: found '", name, "', expected f32, f16, bf16, q8_0 or q4_0"});
}

KvCache::KvCache(std::vector<Layer> layers, int64_t pages, Formats formats)
    : layers_(std::move(layers)), pages_(pages), formats_(formats) {
    expect_range(pages, 1, INT32_MAX, {"pages"});
    for (const Layer& layer : layers_) {
        expect_range(layer.n_head, 1, most_elements, {"heads of a layer"});
        expect_range(layer.dim_k, 1, most_elements, {"dim_k of a layer"});
        expect_range(layer.dim_v, 0, most_elements, {"dim_v of a layer"});
        const int64_t key_bytes = kv_bytes(formats.keys, layer.dim_k, false);
        const int64_t value_bytes = layer.dim_v > 0 ? kv_bytes(formats.values, layer.dim_v, true) : 0;
        const int64_t head_bytes = key_bytes + value_bytes;
        place_.push_back({page_bytes_, key_bytes, head_bytes});
        page_bytes_ =
            checked_add(page_bytes_, checked_product({layer.n_head, head_bytes}, {"cache"}), {"cache"});
    }
    memory_ = std::make_unique<ZeroMemory>(checked_product({pages, page_bytes_}, {"cache"}));
}

std::span<std::byte> KvCache::page(int64_t page) {
    expect_range(page, 0, pages_ - 1, {"page"});
    return {memory_->data() + page * page_bytes_, static_cast<size_t>(page_bytes_)};
}

void KvCache::copy_page(int64_t source, int64_t destination) {
    const std::span<std::byte> from = page(source), to = page(destination);
    if (source != destination) std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace clarion
