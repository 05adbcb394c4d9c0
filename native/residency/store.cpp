#include "residency/store.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace clarion {

Store::Store(int64_t extent_bytes) : extent_bytes_(extent_bytes) {
    if (extent_bytes < 1)
        throw std::invalid_argument("extent_bytes: found " + std::to_string(extent_bytes) +
                                    ", expected at least 1");
    inside_.reserve(16);  // runs side by side; entering allocates nothing then
}

Extents& Store::add(int64_t rows, int64_t experts, int64_t row_bytes, bool may_be_panels) {
    int64_t all = 0;
    if (rows < 1 || experts < 1 || row_bytes < 1 || __builtin_mul_overflow(rows, experts, &all) ||
        __builtin_mul_overflow(all, row_bytes, &all))
        throw std::invalid_argument("a unit: found " + std::to_string(experts) + " matrices of " +
                                    std::to_string(rows) + " rows of " + std::to_string(row_bytes) +
                                    " bytes");
    if (may_be_panels && rows % 16 != 0)
        throw std::invalid_argument("a unit: found panels of " + std::to_string(rows) +
                                    " rows, expected a multiple of 16");
    auto unit = std::make_unique<Extents>(rows, experts, row_bytes, extent_bytes_, may_be_panels, this);
    const std::lock_guard lock(mutex_);
    units_.push_back(std::move(unit));
    return *units_.back();
}

void Store::check(const Extents& unit, int64_t extent) {
    if (extent < 0 || extent >= unit.count())
        throw std::invalid_argument("extent: found " + std::to_string(extent) + ", expected 0 to " +
                                    std::to_string(unit.count() - 1));
}

uint64_t Store::place(Extents& unit, int64_t extent, const uint8_t* data, Layout layout) {
    check(unit, extent);
    if (layout == Layout::panels && !unit.may_be_panels)
        throw std::invalid_argument("extent " + std::to_string(extent) +
                                    ": found panels, which this unit's cannot be");
    const std::lock_guard lock(mutex_);
    unit.publish(extent, data, layout);
    return ++version_;
}

bool Store::evict(Extents& unit, int64_t extent) {
    check(unit, extent);
    const std::lock_guard lock(mutex_);
    if (!inside_.empty()) return false;
    unit.publish(extent, nullptr, Layout::rows);
    ++version_;
    return true;
}

uint64_t Store::reached() const {
    const std::lock_guard lock(mutex_);
    return oldest();
}

bool Store::wait(uint64_t version) const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || oldest() >= version; });
    return oldest() >= version;
}

void Store::end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    gate_.end();
    changed_.notify_all();
}

uint64_t Store::enter(bool urgent) noexcept {
    const std::lock_guard lock(mutex_);
    inside_.push_back(version_);
    if (urgent && urgent_++ == 0) gate_.close();
    return version_;
}

void Store::leave(uint64_t version, bool urgent) noexcept {
    const std::lock_guard lock(mutex_);
    inside_.erase(std::find(inside_.begin(), inside_.end(), version));
    if (urgent && --urgent_ == 0) gate_.open();
    changed_.notify_all();
}

}  // namespace clarion
