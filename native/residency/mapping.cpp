#include "residency/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <stdexcept>
#include <system_error>

namespace clarion {

// One entry of the table that the signal handler searches. The handler may interrupt any thread at any
// instruction, so it takes no lock: `version` is odd while the other fields change, and a reader that saw it
// odd or changing skips the entry. It cannot be the one it looks for, for that is mapped and at rest.
struct MappedRegion {
    std::atomic<uint32_t> version{0};
    std::atomic<uintptr_t> begin{0}, end{0};
    std::atomic<bool> damaged{false};
    std::atomic<bool> released{false};  // some of it, which nobody is to enter into the page table again

    void set(uintptr_t new_begin, uintptr_t new_end) {
        const uint32_t before = version.load(std::memory_order_relaxed);
        version.store(before + 1, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_release);
        begin.store(new_begin, std::memory_order_relaxed);
        end.store(new_end, std::memory_order_relaxed);
        version.store(before + 2, std::memory_order_release);
    }

    // The end of the region if it contains the address, else 0.
    uintptr_t end_around(uintptr_t address) const {
        const uint32_t before = version.load(std::memory_order_acquire);
        const uintptr_t b = begin.load(std::memory_order_relaxed), e = end.load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        const bool stable = before % 2 == 0 && version.load(std::memory_order_relaxed) == before;
        return stable && address >= b && address < e ? e : 0;
    }
};

namespace {

constexpr size_t max_regions = 4096;
MappedRegion regions[max_regions];
std::mutex regions_mutex;  // between those who map and unmap; the handler does not take it
struct sigaction previous_action;
uintptr_t page_size;

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

// Maps zero pages over what is left of the region around the address. False if there is no such region.
bool replace_by_zeros(uintptr_t address) {
    for (MappedRegion& region : regions) {
        const uintptr_t end = region.end_around(address);
        if (end == 0) continue;
        region.damaged.store(true, std::memory_order_release);
        const uintptr_t page = address & ~(page_size - 1);
        return mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
    return false;
}

// What the system says of a page that its file no longer holds. macOS on Arm has this one code for all.
#if defined(__APPLE__) && defined(__aarch64__)
constexpr int page_is_gone = BUS_ADRALN;
#else
constexpr int page_is_gone = BUS_ADRERR;
#endif

void on_bus_error(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const bool handled =
        info->si_code == page_is_gone && replace_by_zeros(reinterpret_cast<uintptr_t>(info->si_addr));
    errno = saved_errno;
    if (handled) return;
    if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
        previous_action.sa_sigaction(signal, info, context);
    } else if (previous_action.sa_handler == SIG_IGN && info->si_code <= 0) {
        return;  // sent by a process, and ignored before we came
    } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
        std::signal(signal, SIG_DFL);
        std::raise(signal);  // delivered when this handler returns
    } else {
        previous_action.sa_handler(signal);
    }
}

void install_handler() {
    static std::once_flag once;
    std::call_once(once, [] {
        page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        struct sigaction action{};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGBUS, nullptr, &previous_action) != 0 || sigaction(SIGBUS, &action, nullptr) != 0)
            throw std::system_error(errno, std::generic_category(), "sigaction");
    });
}

MappedRegion* claim_region(uintptr_t begin, uintptr_t end) {
    const std::lock_guard lock(regions_mutex);
    for (MappedRegion& region : regions) {
        if (region.end.load(std::memory_order_relaxed) != 0) continue;
        region.damaged.store(false, std::memory_order_relaxed);
        region.released.store(false, std::memory_order_relaxed);
        region.set(begin, end);
        return &region;
    }
    throw std::length_error("this process maps " + std::to_string(max_regions) +
                            " files already, the most allowed");
}

// When the file was modified, in nanoseconds.
int64_t modified(const struct stat& status) {
#ifdef __APPLE__
    const timespec& time = status.st_mtimespec;
#else
    const timespec& time = status.st_mtim;
#endif
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

}  // namespace

Mapping::Mapping(const std::string& path) {
    install_handler();
    // Without O_NONBLOCK, opening a pipe would wait for a writer.
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw std::system_error(errno, std::generic_category());
    try {
        map();
    } catch (...) {
        close(descriptor_);
        throw;
    }
}

void Mapping::map() {
    struct stat status;
    if (fstat(descriptor_, &status) != 0) throw std::system_error(errno, std::generic_category());
    if (!S_ISREG(status.st_mode)) throw std::invalid_argument("not a regular file");
    size_ = static_cast<size_t>(status.st_size);
    modified_ = modified(status);
    if (size_ == 0) return;
    void* address = mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor_, 0);
    if (address == MAP_FAILED) throw std::system_error(errno, std::generic_category());
    const auto begin = reinterpret_cast<uintptr_t>(address);
    try {
        region_ = claim_region(begin, begin + (size_ + page_size - 1) / page_size * page_size);
    } catch (...) {
        munmap(address, size_);
        throw;
    }
    data_ = static_cast<const uint8_t*>(address);
}

Mapping::~Mapping() {
    closing_.store(true, std::memory_order_relaxed);
    if (populating_.joinable()) populating_.join();
    if (region_ != nullptr) {
        {
            const std::lock_guard lock(regions_mutex);
            region_->set(0, 0);
        }
        munmap(const_cast<uint8_t*>(data_), size_);
    }
    close(descriptor_);
}

void Mapping::populate() {
    // 10 us each. Longer pieces keep the lock of the address space from a thread that allocates meanwhile: with 2 MB,
    // making a tokenizer took 0.1 s longer instead of 0.03 s.
    static constexpr size_t piece = size_t{256} << 10;
    if (populating_.joinable()) return;
    populating_ = std::thread([this] {
        const auto wanted = [&] {
            return !closing_.load(std::memory_order_relaxed) &&
                   !region_->released.load(std::memory_order_relaxed);
        };
        for (size_t at = 0; at < size_ && wanted(); at += piece)
            if (!populate_piece(at, std::min(piece, size_ - at))) return;
    });
}

// False if the page cache lacks its first page, or the system cannot do it.
bool Mapping::populate_piece(size_t offset, size_t size) const {
#if defined(MADV_POPULATE_READ) && defined(RWF_NOWAIT)
    uint8_t byte;
    const iovec target{&byte, 1};
    if (preadv2(descriptor_, &target, 1, static_cast<off_t>(offset), RWF_NOWAIT) != 1) return false;
    return madvise(const_cast<uint8_t*>(data_) + offset, size, MADV_POPULATE_READ) == 0;
#else
    return false;
#endif
}

bool Mapping::damaged() const {
    if (region_ != nullptr && region_->damaged.load(std::memory_order_acquire)) return true;
    struct stat status;
    return fstat(descriptor_, &status) != 0 || static_cast<size_t>(status.st_size) != size_ ||
           modified(status) != modified_;
}

void release_mapped_pages(const uint8_t* begin, size_t size) {
    const auto first = reinterpret_cast<uintptr_t>(begin);
    for (MappedRegion& region : regions) {
        const uintptr_t end = region.end_around(first);
        if (end == 0) continue;
        if (region.damaged.load(std::memory_order_acquire)) return;  // its zero pages must stay
        region.released.store(true, std::memory_order_relaxed);
        const uintptr_t from = (first + page_size - 1) & ~(page_size - 1);
        const uintptr_t to = std::min(first + size, end) & ~(page_size - 1);
        if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
        return;
    }
}

}  // namespace clarion
