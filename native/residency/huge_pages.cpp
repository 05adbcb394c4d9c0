#include "residency/huge_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace clarion {

HugePages::HugePages(size_t size) : mapped_(size + alignment) {
    if (size > SIZE_MAX - alignment) throw std::bad_alloc();
    base_ =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(base_);
    data_ = reinterpret_cast<uint8_t*>((address + alignment - 1) / alignment * alignment);
#ifdef MADV_HUGEPAGE
    madvise(data_, size, MADV_HUGEPAGE);  // advice: a system without them gives small ones
#endif
}

HugePages::~HugePages() { munmap(base_, mapped_); }

}  // namespace clarion
