#include "machine/pool.h"

#include <algorithm>
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

// In the lower half of an epoch that ends a run.
constexpr uint32_t over = 1;

constexpr uint32_t upper(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
constexpr uint32_t lower(uint64_t word) { return static_cast<uint32_t>(word); }

// The first of so many items that belongs to a lane.
constexpr uint64_t lane_begin(uint64_t items, int lane, int lanes) {
    return items * static_cast<uint64_t>(lane) / static_cast<uint64_t>(lanes);
}

}  // namespace

ScratchSpace::ScratchSpace(int threads, size_t bytes_each)
    : memory_(checked_product({threads, rounded_up(bytes_each)}, {"scratch"})) {
    for (int t = 0; t < threads; ++t)
        pieces_.push_back({memory_.data() + t * rounded_up(bytes_each), bytes_each, t});
}

Pool::Pool(int threads, Tiling tiling, std::string_view processors)
    : tiling_(tiling),
      groups_(std::make_unique<Group[]>(most_threads / group_lanes)),
      lanes_(std::make_unique<Lane[]>(most_threads)) {
    try {
        grow(threads, processors);
    } catch (...) {
        join();
        throw;
    }
}

void Pool::grow(int threads, [[maybe_unused]] std::string_view processors) {
    expect_range(threads, 1, most_threads, {"threads"});
    const Turn turn(*this);
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int t = this->threads(); t < threads; ++t) {
        workers_.emplace_back([this, t] { work(t); });
        threads_.store(t + 1, std::memory_order_relaxed);
#ifdef __linux__
        pthread_setname_np(workers_.back().native_handle(), "clarion-pool");  // for whoever lists threads
#endif
    }
#ifdef __linux__
    // Where the system refuses, memory is farther away, which is no error.
    if (const size_t size = processors.size() / static_cast<size_t>(threads))
        for (size_t t = 1; t < static_cast<size_t>(threads); ++t)
            pthread_setaffinity_np(workers_[t - 1].native_handle(), size,
                                   reinterpret_cast<const cpu_set_t*>(processors.data() + t * size));
#endif
}

Pool::~Pool() { join(); }

void Pool::join() {
    stop_.store(true, std::memory_order_relaxed);
    publish_over();
    wake(1, threads(), threads());
    for (std::thread& worker : workers_) worker.join();
}

bool Pool::run(std::span<const std::unique_ptr<Op>> ops, const Batch& batch, std::span<const Scratch> scratch,
               const std::atomic<bool>& cancelled, std::span<int64_t> items) {
    if (scratch.empty() || scratch.size() > static_cast<size_t>(threads()))
        refuse({"a run on ", scratch.size(), " threads, expected 1 to ", threads()});
    const Turn turn(*this);
    active_ = static_cast<int>(scratch.size());
    ops_ = ops;
    next_ = 0;
    batch_ = &batch;
    scratch_ = scratch;
    items_ = items;
    cancelled_ = &cancelled;
    advance(0);
    work(0);
    return complete_;
}

void Pool::each(int threads, int64_t n, const std::function<void(int64_t item, int thread)>& item) {
    class Each final : public Op {
      public:
        Each(int64_t n, const std::function<void(int64_t, int)>& item) : n_(n), item_(item) {}
        int64_t begin(const Batch&) override { return n_; }
        void run(const Batch&, int64_t i, const Scratch& scratch) override { item_(i, scratch.thread); }

      private:
        int64_t n_;
        const std::function<void(int64_t, int)>& item_;
    };
    static const std::atomic<bool> never{false};
    const std::unique_ptr<Op> op = std::make_unique<Each>(n, item);
    std::vector<Scratch> scratch;
    for (int t = 0; t < threads; ++t) scratch.push_back({nullptr, 0, t});
    run({&op, 1}, Batch{}, scratch, never);
}

Pool::Turn::Turn(Pool& pool) : pool_(pool) {
    std::unique_lock lock(pool_.turns_);
    const uint64_t mine = pool_.next_turn_++;
    pool_.turn_ended_.wait(lock, [&] { return pool_.turn_ == mine; });
}

Pool::Turn::~Turn() {
    bool others;
    {
        const std::lock_guard lock(pool_.turns_);
        others = ++pool_.turn_ != pool_.next_turn_;
    }
    if (others) pool_.turn_ended_.notify_all();
}

// A worker returns when the pool is destroyed, the caller when its run is over.
void Pool::work(int thread) {
    for (;;) {
        const uint64_t epoch = epoch_.load(std::memory_order_acquire);
        if (lower(epoch) == over) {
            if (thread == 0 || stop_.load(std::memory_order_relaxed)) return;
            wait(thread, epoch, spin_time);
            continue;
        }
        const uint64_t work = work_[upper(epoch) % 2].load(std::memory_order_acquire);
        const uint32_t items = lower(work);
        const int threads = static_cast<int>(upper(work)), lanes = std::min(threads, static_cast<int>(items));
        if (thread >= threads) {
            wait(thread, epoch, std::chrono::microseconds(0));
            continue;
        }
        std::optional<int64_t> item = none;
        int lane = 0;
        for (int i = 0; i < lanes && item == none; ++i) {
            lane = (thread + i) % lanes;
            item = take(lane, lanes, epoch, items);
        }
        if (!item) continue;
        if (*item == none) {
            wait(thread, epoch, spin_time);
            continue;
        }
        ops_[next_ - 1]->run(*batch_, *item, scratch_[static_cast<size_t>(thread)]);
        if (groups_[static_cast<size_t>(lane / group_lanes)].unfinished.fetch_sub(
                1, std::memory_order_acq_rel) == 1 &&
            unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            advance(thread);
    }
}

std::optional<int64_t> Pool::take(int lane, int lanes, uint64_t epoch, uint32_t items) {
    std::atomic<uint64_t>& next = lanes_[static_cast<size_t>(lane)].next;
    uint64_t word = next.load(std::memory_order_acquire);
    for (;;) {
        if (upper(word) != upper(epoch)) return std::nullopt;
        if (lower(word) >= lane_begin(items, lane + 1, lanes)) return none;
        if (next.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel, std::memory_order_acquire))
            return lower(word);
    }
}

// Called by the one thread that knows all items before to be finished. Operations of one item are run here:
// what they do is less than what it costs to tell the others.
void Pool::advance(int thread) {
    while (next_ < ops_.size() && !cancelled_->load(std::memory_order_relaxed)) {
        Op& op = *ops_[next_++];
        const int64_t items = op.begin(*batch_);
        if (!items_.empty()) items_[next_ - 1] = items;
        if (items > 1) {
            const int active = active_;  // once published, others may end this run and begin the next
            publish(static_cast<uint32_t>(items));
            wake(0, active, items - 1);
            return;
        }
        if (items == 1) op.run(*batch_, 0, scratch_[static_cast<size_t>(thread)]);
    }
    complete_ = next_ == ops_.size();
    publish_over();
    wake(0, 1, 1);
}

uint64_t Pool::next_number() const { return upper(epoch_.load(std::memory_order_relaxed)) + uint64_t{1}; }

void Pool::publish(uint32_t items) {
    const uint64_t number = next_number() << 32;
    work_[upper(number) % 2].store(static_cast<uint64_t>(active_) << 32 | items, std::memory_order_release);
    const int lanes = std::min(active_, static_cast<int>(items));
    const int groups = (lanes + group_lanes - 1) / group_lanes;
    unfinished_.store(static_cast<uint32_t>(groups), std::memory_order_relaxed);
    for (int g = 0; g < groups; ++g) {
        const int first = g * group_lanes, last = std::min(first + group_lanes, lanes);
        const uint64_t n = lane_begin(items, last, lanes) - lane_begin(items, first, lanes);
        groups_[static_cast<size_t>(g)].unfinished.store(static_cast<uint32_t>(n), std::memory_order_relaxed);
    }
    for (int l = 0; l < lanes; ++l)
        lanes_[static_cast<size_t>(l)].next.store(number | lane_begin(items, l, lanes),
                                                  std::memory_order_release);
    epoch_.store(number, std::memory_order_seq_cst);
}

void Pool::publish_over() { epoch_.store(next_number() << 32 | over, std::memory_order_seq_cst); }

// Until the epoch is no longer the one seen; may return early. It looks for so long before it sleeps.
void Pool::wait(int thread, uint64_t seen, std::chrono::microseconds spin) {
    Lane& own = lanes_[static_cast<size_t>(thread)];
    if (spin.count() > 0) {
        const auto until = std::chrono::steady_clock::now() + spin;
        do {
            for (int i = 0; i < 16; ++i) {
                if (epoch_.load(std::memory_order_relaxed) != seen) return;
                simd::pause();
            }
        } while (std::chrono::steady_clock::now() < until);
    }
    own.asleep.store(1, std::memory_order_seq_cst);
    if (epoch_.load(std::memory_order_seq_cst) == seen) own.asleep.wait(1, std::memory_order_relaxed);
    own.asleep.store(0, std::memory_order_relaxed);
}

// Wakes at most so many of the sleepers among the threads first .. last-1.
void Pool::wake(int first, int last, int64_t most) {
    for (int t = first; t < last && most > 0; ++t) {
        std::atomic<uint32_t>& asleep = lanes_[static_cast<size_t>(t)].asleep;
        if (asleep.load(std::memory_order_seq_cst) == 1 &&
            asleep.exchange(0, std::memory_order_relaxed) == 1) {
            asleep.notify_one();
            --most;
        }
    }
}

}  // namespace clarion
