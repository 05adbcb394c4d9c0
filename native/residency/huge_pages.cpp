#include "residency/huge_pages.h"

#include <sys/mman.h>

#include <new>

namespace clarion {

namespace {

constexpr size_t huge_page = size_t{2} << 20;  // x86-64 and most others; elsewhere only an alignment

}  // namespace

HugePages::HugePages(size_t size) : mapped_(size + huge_page) {
    base_ =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(base_);
    data_ = reinterpret_cast<uint8_t*>((address + huge_page - 1) / huge_page * huge_page);
#ifdef MADV_HUGEPAGE
    madvise(data_, size, MADV_HUGEPAGE);  // advice: a system without them gives small ones
#endif
}

HugePages::~HugePages() { munmap(base_, mapped_); }

}  // namespace clarion
