// The threads of all programs of a process, and how they share the items of one operation after another.
//
// A run uses the first n of them, all alike: its caller, which is thread 0, and n-1 workers; n belongs to the program. Runs
// of several callers take turns in the order in which they came. An epoch is one operation of one run, or the end of the
// run. Its items are cut into lanes, one for each thread, of items that lie beside each other:
//
//     epoch    = number << 32 | `over` at the end of a run
//     work[e%2] = threads of the run << 32 | items of epoch e
//     lane[l]  = number << 32 | next item of this lane
//
// A thread takes an item by raising a lane's word by one with a compare-and-swap, so it holds exactly the item it saw:
// from its own lane until that is empty, then from the others'. So it reads memory in order, which is what fetching ahead
// needs, and nobody waits while there is work. Whoever finishes the last item of an epoch advances: it looks at the cancel
// flag, calls begin() of the next operation and publishes the next epoch. So no thread ever waits for one that holds no
// item: where cores are shared with other processes, a thread that loses its core costs at most the item it held, and the
// others sleep meanwhile, which lets the system move the loser to the core that they left.
//
// Why it is right.
// 1. Each item is taken once, and only while its epoch runs. The number of items stands in work_[number % 2], written
//    before the lanes, and they before the epoch is published; none is written again before the next epoch is complete.
//    A thread reads the epoch e, then work_[e % 2], then a lane (e, i), then swaps that for (e, i+1). If the swap
//    succeeds, the lane was (e, i) all along, because numbers only grow, and e was not complete; so what was read between
//    is the count of e. (If the count were that of e+2, its acquiring load would order the completion of e before the
//    swap, which then could not find an item of e.) A thread that slept through whole runs between its read and its swap
//    fails the swap and looks again; one that finds a lane of another epoch does too. Numbers wrap after 2^32 operations:
//    to be fooled, a thread must sleep between these two instructions for exactly that many, over an hour of
//    uninterrupted work at a microsecond each.
// 2. A lane whose items are gone is only read, never raised. It cannot overflow into the number.
// 3. Only one thread at a time advances. Between runs that right lies with whoever has its turn; it goes to the thread
//    that finishes the last item, and back to the caller by the epoch that says `over`, after which the worker that
//    published it touches nothing but flags of sleepers. That is why the end is an epoch and not a flag beside it: a
//    flag could be seen before the epoch, and the next run would publish at the same time.
// 4. What an item needs (operation, batch, scratch) lies in plain members. They are written only by the thread that
//    advances, when no item is held, and read only by holders of an item. Publishing releases, the lanes before the
//    epoch; taking an item acquires (a swap continues the release sequence of its lane), and each finished item is
//    counted down with an acquire-release, first among those of its group of lanes, then, by the thread that counts the
//    group's last one, among the groups. So the thread that counts the last group has seen everything that the others
//    wrote. Two steps because a line that all threads write is with each of them in turn: for 128 cores that takes
//    longer than a product.
// 5. Nobody sleeps past a publication: a sleeper announces itself, then looks at the epoch once more; a publisher
//    stores the epoch, then looks for sleepers. Both pairs are sequentially consistent, so at least one side sees
//    the other. Only the caller must be woken, at the end of its run. Workers are woken as far as there are items;
//    if all of them slept on, the thread that published would still do the work. A worker beyond the n of a run takes
//    nothing and sleeps at once; who publishes does not wake it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "machine/memory.h"
#include "machine/op.h"
#include "machine/tiling.h"

namespace clarion {

// One piece of scratch memory for each thread, aligned to 64 bytes and never shared between them.
class ScratchSpace {
  public:
    ScratchSpace(int threads, size_t bytes_each);
    std::span<const Scratch> pieces() const { return pieces_; }

  private:
    ZeroMemory memory_;
    std::vector<Scratch> pieces_;
};

class Pool {
  public:
    static constexpr int most_threads = 1024;

    // As `grow`.
    explicit Pool(int threads, Tiling tiling = Tiling(), std::string_view processors = {});
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // Starts workers until there are so many threads; it waits for its turn. `processors` are masks of the system, one for
    // each of these threads, that keep the workers near to what they read; where there are none, the system moves them
    // as it likes. Who calls run() sees to thread 0. Throws std::invalid_argument unless 1 <= threads <= most_threads.
    void grow(int threads, std::string_view processors = {});

    int threads() const { return threads_.load(std::memory_order_relaxed); }
    const Tiling& tiling() const { return tiling_; }  // for the caches of each thread's core

    // Runs the operations one after the other, each split over as many threads as `scratch` has pieces, at most threads().
    // Returns false if `cancelled` was seen between two operations. `items` are told into how many each operation split;
    // there are as many of them as operations, or none.
    bool run(std::span<const std::unique_ptr<Op>> ops, const Batch& batch, std::span<const Scratch> scratch,
             const std::atomic<bool>& cancelled, std::span<int64_t> items = {});

    // Calls item(0) .. item(n-1) on so many threads as a run of one operation. `item` must not throw.
    void each(int threads, int64_t n, const std::function<void(int64_t item, int thread)>& item);

  private:
    // Runs take turns, first come first served: a mutex would let one caller take it again and again.
    class Turn {
      public:
        explicit Turn(Pool& pool);
        ~Turn();
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;

      private:
        Pool& pool_;
    };

    void join();
    void work(int thread);
    void advance(int thread);
    static constexpr int64_t none = -1;
    // The lane's next item, `none` if it has none, or nothing if the epoch is no longer the one seen.
    std::optional<int64_t> take(int lane, int lanes, uint64_t epoch, uint32_t items);
    void publish(uint32_t items);
    void publish_over();
    uint64_t next_number() const;
    void wait(int thread, uint64_t seen, std::chrono::microseconds spin);
    void wake(int first, int last, int64_t most);

    struct alignas(64) Lane {
        std::atomic<uint64_t> next{0};
        std::atomic<uint32_t> asleep{0};  // of the thread of this number
    };
    // Neighbouring lanes that count their finished items together.
    static constexpr int group_lanes = 8;
    struct alignas(64) Group {
        std::atomic<uint32_t> unfinished{0};  // items
    };

    alignas(64) std::atomic<uint64_t> epoch_{0};
    std::atomic<uint64_t> work_[2] = {0, 0};
    alignas(64) std::atomic<uint32_t> unfinished_{0};  // groups
    std::atomic<bool> stop_{false};

    // The run. See 4 above. Every item reads this: it must not lie on the line of a count, which every item writes.
    alignas(64) std::span<const std::unique_ptr<Op>> ops_;
    size_t next_ = 0;  // ops_[next_ - 1] is running
    const Batch* batch_ = nullptr;
    std::span<const Scratch> scratch_;
    std::span<int64_t> items_;
    const std::atomic<bool>* cancelled_ = nullptr;
    bool complete_ = false;

    int active_ = 0;  // threads of the run

    std::mutex turns_;  // guards the two numbers
    std::condition_variable turn_ended_;
    uint64_t next_turn_ = 0, turn_ = 0;

    std::atomic<int> threads_{1};
    Tiling tiling_;
    std::unique_ptr<Group[]> groups_;  // [most_threads / group_lanes]
    std::unique_ptr<Lane[]> lanes_;    // [most_threads]: they never move, for workers look at their own
    std::vector<std::thread> workers_;
};

}  // namespace clarion
