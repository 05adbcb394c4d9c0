#include "machine/pool.h"

#include <chrono>
#include <stdexcept>
#include <string>

#include "tests/check.h"

namespace clarion::tests {

namespace {

using namespace std::chrono_literals;

const std::atomic<bool> never{false};

// Counts the runs of each of its items in plain memory. When it begins, the operation before it must have run each of
// its items once, and its items read what that one wrote: a race, or an item lost or taken twice, does not go unseen.
class Counting final : public Op {
  public:
    Counting(int64_t items, Counting* before, std::chrono::microseconds pause = 0us)
        : runs_(static_cast<size_t>(items), 0), before_(before), pause_(pause) {}

    int64_t begin(const Batch&) override {
        if (before_) check(before_->complete());
        ++round_;
        return static_cast<int64_t>(runs_.size());
    }

    void run(const Batch&, int64_t item, const Scratch& scratch) override {
        // Some items take long, so that threads that wait for them fall asleep.
        if (pause_ > 0us && item % 7 == 0) std::this_thread::sleep_for(pause_);
        auto* own = reinterpret_cast<int*>(scratch.data);
        own[0] = static_cast<int>(item);
        ++runs_[static_cast<size_t>(item)];
        if (before_ && !before_->runs_.empty())
            check(before_->runs_[static_cast<size_t>(item) % before_->runs_.size()] == round_);
        check(own[0] == item);
    }

    bool complete() const {
        for (const int runs : runs_)
            if (runs != round_) return false;
        return true;
    }

  private:
    std::vector<int> runs_;
    Counting* before_;
    std::chrono::microseconds pause_;
    int round_ = 0;
};

using Ops = std::vector<std::unique_ptr<Op>>;

Ops counting(std::initializer_list<int64_t> items, std::chrono::microseconds pause = 0us) {
    Ops ops;
    Counting* before = nullptr;
    for (const int64_t n : items) {
        ops.push_back(std::make_unique<Counting>(n, before, pause));
        before = static_cast<Counting*>(ops.back().get());
    }
    return ops;
}

void check_complete(const Ops& ops) {
    for (const auto& op : ops) check(static_cast<const Counting&>(*op).complete());
}

void every_item_runs_once(int threads, int rounds, std::chrono::microseconds pause) {
    Pool pool(threads);
    const ScratchSpace scratch(threads, sizeof(int));
    const Ops ops = counting({1, 5, 0, 300, 2, 1, 1, 64, 0, 3, 17, 2, 2, 40}, pause);
    const Ops one = counting({3});
    const Batch batch{};
    for (int i = 0; i < rounds; ++i) {
        check(pool.run(ops, batch, scratch.pieces(), never));
        check(pool.run(one, batch, scratch.pieces(), never));
        check_complete(ops);
        check_complete(one);
        if (i % 64 == 0) std::this_thread::sleep_for(200us);  // everybody sleeps
    }
    check(pool.run({}, batch, scratch.pieces(), never));
}

void callers_queue_up() {
    Pool pool(3);
    const ScratchSpace scratch(3, sizeof(int));
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; ++c)
        callers.emplace_back([&] {
            const Ops ops = counting({4, 1, 30, 7});
            const Batch batch{};
            for (int i = 0; i < 500; ++i) {
                check(pool.run(ops, batch, scratch.pieces(), never));
                check_complete(ops);
            }
        });
    for (std::thread& caller : callers) caller.join();
}

// Two programs of different threads share one pool, which grows while the first one runs.
void programs_share_threads() {
    Pool pool(1);
    std::atomic<bool> stop{false};
    const auto runs = [&](int threads) {
        const ScratchSpace scratch(threads, sizeof(int));
        const Ops ops = counting({4, 1, 30, 7, 200});
        for (int i = 0; i < 300; ++i) {
            check(pool.run(ops, Batch{}, scratch.pieces(), never));
            check_complete(ops);
        }
    };
    std::thread one([&] { runs(1); });
    pool.grow(4);
    check(pool.threads() == 4);
    std::vector<std::thread> others;
    for (const int threads : {1, 2, 3, 4}) others.emplace_back([&runs, threads] { runs(threads); });
    std::vector<int> seen(100, 0);
    for (int i = 1; i <= 50; ++i) {
        pool.each(3, 100, [&](int64_t item, int thread) {
            check(thread >= 0 && thread < 3);
            ++seen[static_cast<size_t>(item)];
        });
        for (const int n : seen) check(n == i);
    }
    one.join();
    for (std::thread& other : others) other.join();
    const ScratchSpace five(5, sizeof(int));
    check(refusal([&] { pool.run({}, Batch{}, five.pieces(), never); }) ==
          "a run on 5 threads, expected 1 to 4");
}

class Once final : public Op {
  public:
    explicit Once(std::atomic<bool>& flag, int64_t items) : flag_(flag), items_(items) {}
    int64_t begin(const Batch&) override { return items_; }
    void run(const Batch&, int64_t, const Scratch&) override { flag_.store(true); }

  private:
    std::atomic<bool>& flag_;
    int64_t items_;
};

void cancelling_ends_a_run(int64_t items) {
    Pool pool(2);
    const ScratchSpace scratch(2, sizeof(int));
    std::atomic<bool> cancelled{false}, ran_on{false};
    Ops ops;
    ops.push_back(std::make_unique<Once>(cancelled, items));
    ops.push_back(std::make_unique<Once>(ran_on, items));
    const Batch batch{};
    check(!pool.run(ops, batch, scratch.pieces(), cancelled));
    check(!ran_on);
    cancelled.store(false);
    const std::span<const std::unique_ptr<Op>> last(ops.data() + 1, 1);
    check(pool.run(last, batch, scratch.pieces(), cancelled));
    check(ran_on);
}

}  // namespace

void test_pool() {
    for (int threads = 1; threads <= 5; ++threads) every_item_runs_once(threads, 1000, 0us);
    every_item_runs_once(4, 3, 300us);
    callers_queue_up();
    programs_share_threads();
    cancelling_ends_a_run(1);
    cancelling_ends_a_run(9);
    for (int i = 0; i < 50; ++i) Pool pool(4);
    check(refusal([] { Pool pool(0); }) == "threads: found 0, expected 1 to 1024");
}

}  // namespace clarion::tests
