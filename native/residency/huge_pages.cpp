#include "residency/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "residency/mapping.h"

namespace clarion {

namespace {

constexpr size_t huge_page = size_t{2} << 20;  // x86-64 and most others; elsewhere only an alignment
constexpr size_t piece_bytes = 4 * huge_page;

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

void copy_all(std::span<const CopyJob> jobs, int threads) {
    std::vector<CopyJob> pieces;
    for (const CopyJob& job : jobs)
        for (size_t at = 0; at < job.size; at += piece_bytes)
            pieces.push_back({job.from + at, job.to + at, std::min(piece_bytes, job.size - at)});
    std::atomic<size_t> next{0};
    const auto work = [&] {
        for (size_t i = next.fetch_add(1); i < pieces.size(); i = next.fetch_add(1)) {
            std::memcpy(pieces[i].to, pieces[i].from, pieces[i].size);
            release_mapped_pages(pieces[i].from, pieces[i].size);
        }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
}

}  // namespace clarion
