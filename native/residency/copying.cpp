#include "residency/copying.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "residency/mapping.h"

namespace clarion {

namespace {

constexpr size_t piece_bytes = size_t{8} << 20;  // whole huge pages, and large against starting a piece

}  // namespace

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
