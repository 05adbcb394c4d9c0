#include "machine/memory.h"

#include <cstdlib>
#include <new>

#include "machine/checked.h"

namespace clarion {

void ZeroMemory::Free::operator()(void* p) const { std::free(p); }

ZeroMemory::ZeroMemory(int64_t bytes) {
    // calloc takes a large block straight from the system, which hands out zero pages when they are first
    // touched.
    block_.reset(std::calloc(static_cast<size_t>(checked_add(bytes, memory_alignment, {"memory"})), 1));
    if (!block_) throw std::bad_alloc();
    auto* first = static_cast<std::byte*>(block_.get());
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(first) % memory_alignment);
    data_ = first + (memory_alignment - beyond) % memory_alignment;
}

}  // namespace clarion
