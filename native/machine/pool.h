// The threads, and how they share the items of one operation after another.
//
// All threads are alike: the caller of run() and n-1 workers. Everything that decides who does what is one
// number,
//
//     ticket = epoch << 32 | next item, or `over`
//
// An epoch is one operation of one run, or the end of the run. A thread takes an item by raising the ticket by one with
// a compare-and-swap, so it holds exactly the item it saw. Whoever finishes the last item of an epoch advances: it looks
// at the cancel flag, calls begin() of the next operation and publishes the next epoch. So no thread ever waits for one
// that holds no item: where cores are shared with other processes, a thread that loses its core costs at most the item
// it held, and the others sleep meanwhile, which lets the system move the loser to the core that they left.
//
// Why it is right.
// 1. Each item is taken once, and only while its epoch runs. The number of items stands in items_[epoch % 2], written
//    before the epoch is published and not again before epoch + 1 has been. A thread reads the ticket (e, i), then
//    items_[e % 2], then swaps (e, i) for (e, i+1). If the swap succeeds, the ticket was (e, i) all along, because
//    epochs only grow; so what was read between is the count of e. (If the count were that of e+2, its acquiring load
//    would order the publication of e+1 before the swap, which then could not find epoch e.) A thread that slept
//    through whole runs between its read and its swap fails the swap and looks again. The epoch wraps after 2^32
//    operations: to be fooled, a thread must sleep between these two instructions for exactly that many, over an
//    hour of uninterrupted work at a microsecond each.
// 2. A ticket whose items are gone is only read, never raised. It cannot overflow into the epoch.
// 3. Only one thread at a time advances. Between runs that right lies with whoever holds one_run_; it goes to the thread
//    that finishes the last item, and back to the caller by the ticket that says `over`, after which the worker that
//    published it touches nothing but flags of sleepers. That is why the end is a ticket and not a flag beside it: a
//    flag could be seen before the ticket, and the next run would publish at the same time.
// 4. What an item needs (operation, batch, scratch) lies in plain members. They are written only by the thread that
//    advances, when no item is held, and read only by holders of an item. Publishing the ticket releases, taking an
//    item acquires (a swap continues the release sequence), and each finished item is counted down with an
//    acquire-release, so the thread that counts the last one has seen everything that the others wrote.
// 5. Nobody sleeps past a publication: a sleeper announces itself, then looks at the ticket once more; a publisher
//    stores the ticket, then looks for sleepers. Both pairs are sequentially consistent, so at least one side sees
//    the other. Only the caller must be woken, at the end of its run. Workers are woken as far as there are items;
//    if all of them slept on, the thread that published would still do the work.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
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

    // Throws std::invalid_argument unless 1 <= threads <= most_threads.
    explicit Pool(int threads, Tiling tiling = Tiling());
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }
    const Tiling& tiling() const { return tiling_; }  // for the caches of each thread's core

    // Runs the operations one after the other, each split over the threads; runs of several callers queue up.
    // Returns false if `cancelled` was seen between two operations. `scratch` has one piece for each thread.
    bool run(std::span<const std::unique_ptr<Op>> ops, const Batch& batch, std::span<const Scratch> scratch,
             const std::atomic<bool>& cancelled);

  private:
    void join();
    void work(int thread);
    void advance(int thread);
    void publish(uint32_t items);
    void publish_over();
    uint64_t next_epoch() const;
    void wait(int thread, uint64_t seen);
    void wake(int first, int last, int64_t most);

    alignas(64) std::atomic<uint64_t> ticket_{0};
    std::atomic<uint32_t> items_[2] = {0, 0};
    alignas(64) std::atomic<uint32_t> unfinished_{0};
    std::atomic<bool> stop_{false};

    // The run. See 4 above.
    std::span<const std::unique_ptr<Op>> ops_;
    size_t next_ = 0;  // ops_[next_ - 1] is running
    const Batch* batch_ = nullptr;
    std::span<const Scratch> scratch_;
    const std::atomic<bool>* cancelled_ = nullptr;
    bool complete_ = false;

    std::mutex one_run_;
    int threads_;
    Tiling tiling_;
    std::unique_ptr<std::atomic<uint32_t>[]> asleep_;  // [threads]
    std::vector<std::thread> workers_;
};

}  // namespace clarion
