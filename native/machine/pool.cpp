#include "machine/pool.h"

#include <chrono>

#include "machine/checked.h"
#include "simd/simd.h"

namespace clarion {

namespace {

// How long a thread looks for work before it sleeps. To sleep and be woken costs about as much, so this is
// never worse than twice the best choice; and it bridges what commonly lies between two operations, an
// operation of one item or the last item of another thread.
constexpr std::chrono::microseconds spin_time(30);

int64_t rounded_up(size_t bytes) {
    return (static_cast<int64_t>(bytes) + memory_alignment - 1) / memory_alignment * memory_alignment;
}

// The item number of a ticket that ends a run: more than any operation has.
constexpr uint32_t over = 1u << 31;

constexpr uint32_t epoch_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
constexpr uint32_t item_of(uint64_t ticket) { return static_cast<uint32_t>(ticket); }

}  // namespace

ScratchSpace::ScratchSpace(int threads, size_t bytes_each)
    : memory_(checked_product({threads, rounded_up(bytes_each)}, {"scratch"})) {
    for (int t = 0; t < threads; ++t)
        pieces_.push_back({memory_.data() + t * rounded_up(bytes_each), bytes_each, t});
}

Pool::Pool(int threads, Tiling tiling) : threads_(threads), tiling_(tiling) {
    expect_range(threads, 1, most_threads, {"threads"});
    asleep_ = std::make_unique<std::atomic<uint32_t>[]>(static_cast<size_t>(threads));
    workers_.reserve(static_cast<size_t>(threads - 1));
    try {
        for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
    } catch (...) {
        join();
        throw;
    }
}

Pool::~Pool() { join(); }

void Pool::join() {
    stop_.store(true, std::memory_order_relaxed);
    publish_over();
    wake(1, threads_, threads_);
    for (std::thread& worker : workers_) worker.join();
}

bool Pool::run(std::span<const std::unique_ptr<Op>> ops, const Batch& batch, std::span<const Scratch> scratch,
               const std::atomic<bool>& cancelled) {
    const std::lock_guard lock(one_run_);
    ops_ = ops;
    next_ = 0;
    batch_ = &batch;
    scratch_ = scratch;
    cancelled_ = &cancelled;
    advance(0);
    work(0);
    return complete_;
}

// A worker returns when the pool is destroyed, the caller when its run is over.
void Pool::work(int thread) {
    for (;;) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        const uint32_t items = items_[epoch_of(ticket) % 2].load(std::memory_order_acquire);
        if (item_of(ticket) < items) {
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            ops_[next_ - 1]->run(*batch_, item_of(ticket), scratch_[static_cast<size_t>(thread)]);
            if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) advance(thread);
        } else if (item_of(ticket) == over && (thread == 0 || stop_.load(std::memory_order_relaxed))) {
            return;
        } else {
            wait(thread, ticket);
        }
    }
}

// Called by the one thread that knows all items before to be finished. Operations of one item are run here:
// what they do is less than what it costs to tell the others.
void Pool::advance(int thread) {
    while (next_ < ops_.size() && !cancelled_->load(std::memory_order_relaxed)) {
        Op& op = *ops_[next_++];
        const int64_t items = op.begin(*batch_);
        if (items > 1) {
            unfinished_.store(static_cast<uint32_t>(items), std::memory_order_relaxed);
            publish(static_cast<uint32_t>(items));
            wake(0, threads_, items - 1);
            return;
        }
        if (items == 1) op.run(*batch_, 0, scratch_[static_cast<size_t>(thread)]);
    }
    complete_ = next_ == ops_.size();
    publish_over();
    wake(0, 1, 1);
}

uint64_t Pool::next_epoch() const { return (ticket_.load(std::memory_order_relaxed) >> 32) + 1; }

void Pool::publish(uint32_t items) {
    const uint64_t epoch = next_epoch();
    items_[epoch % 2].store(items, std::memory_order_release);
    ticket_.store(epoch << 32, std::memory_order_seq_cst);
}

void Pool::publish_over() { ticket_.store(next_epoch() << 32 | over, std::memory_order_seq_cst); }

// Until the ticket is no longer the one seen; may return early.
void Pool::wait(int thread, uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + spin_time;
    do {
        for (int i = 0; i < 16; ++i) {
            if (ticket_.load(std::memory_order_relaxed) != seen) return;
            simd::pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    std::atomic<uint32_t>& asleep = asleep_[static_cast<size_t>(thread)];
    asleep.store(1, std::memory_order_seq_cst);
    if (ticket_.load(std::memory_order_seq_cst) == seen) asleep.wait(1, std::memory_order_relaxed);
    asleep.store(0, std::memory_order_relaxed);
}

// Wakes at most so many of the sleepers among the threads first .. last-1.
void Pool::wake(int first, int last, int64_t most) {
    for (int t = first; t < last && most > 0; ++t) {
        std::atomic<uint32_t>& asleep = asleep_[static_cast<size_t>(t)];
        if (asleep.load(std::memory_order_seq_cst) == 1 &&
            asleep.exchange(0, std::memory_order_relaxed) == 1) {
            asleep.notify_one();
            --most;
        }
    }
}

}  // namespace clarion
