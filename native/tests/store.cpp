// The store without a machine: random writes, moves, failures and evictions by policies, beside runs that read everything.
//
// A copy of an extent is words that say which rows of which unit they are and in which layout, so a reader that sees the
// address of one copy with the layout of another, a copy that is half written, or one that was let go and overwritten, finds
// wrong words; and where it happens to find right ones, the thread sanitizer still sees the race.
#include "residency/store.h"

#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/check.h"

namespace clarion::tests {

namespace {

constexpr int64_t row_words = 3, row_bytes = 8 * row_words;
constexpr uint64_t gone = ~uint64_t{0};

// Word k of a row, in rows or in panels of 16, which have the words of one column side by side.
uint64_t word_of(uint64_t unit, int64_t row, int64_t k) {
    return unit << 48 | static_cast<uint64_t>(row) << 16 | static_cast<uint64_t>(k);
}

using Copy = std::vector<uint64_t>;  // of an extent

struct Unit {
    Extents* extents;
    uint64_t number;

    std::unique_ptr<Copy> blank(int64_t i) const {
        return std::make_unique<Copy>(static_cast<size_t>(extents->n_rows(i) * row_words), gone);
    }
    // Writes the first n words.
    void write(Copy& copy, int64_t i, Layout layout, int64_t n) const {
        for (int64_t at = 0; at < n; ++at) {
            const int64_t row = layout == Layout::rows ? at / row_words : at / 16 / row_words * 16 + at % 16;
            const int64_t k = layout == Layout::rows ? at % row_words : at / 16 % row_words;
            copy[static_cast<size_t>(at)] = word_of(number, extents->first_row(i) + row, k);
        }
    }
    // What a product does: finds the extent of each panel, and reads the panel.
    void read() const {
        for (int64_t expert = 0; expert < extents->experts; ++expert)
            for (int64_t row = 0; row < extents->rows; row += 16) {
                const Extent extent = extents->holding(expert, row);
                check(extent.data != nullptr);
                const auto* words =
                    reinterpret_cast<const uint64_t*>(extent.data) + (row - extent.first_row) * row_words;
                for (int64_t r = 0; r < std::min<int64_t>(16, extents->rows - row); ++r)
                    for (int64_t k = 0; k < row_words; ++k)
                        check(words[extent.panels ? 16 * k + r : row_words * r + k] ==
                              word_of(number, expert * extents->rows + row + r, k));
            }
    }
    bool resident() const {
        for (int64_t i = 0; i < extents->count(); ++i)
            if (extents->at(i).data == nullptr) return false;
        return true;
    }
};

// A policy of some units: copies, moves, fails and evicts at random, and overwrites whatever nobody reads any more.
class Policy {
  public:
    Policy(Store& store, std::vector<Unit> units, unsigned seed)
        : store_(store), units_(std::move(units)), random_(seed) {
        for (Unit& unit : units_) placed_.emplace_back(static_cast<size_t>(unit.extents->count()));
        for (size_t u = 0; u < units_.size(); ++u)
            for (int64_t i = 0; i < units_[u].extents->count(); ++i) move(u, i);
    }
    void step() {
        const size_t u = draw(units_.size());
        const auto i = static_cast<int64_t>(draw(static_cast<size_t>(units_[u].extents->count())));
        auto& placed = placed_[u][static_cast<size_t>(i)];
        switch (draw(8)) {
            case 0:  // a copy that fails half way is never placed
                units_[u].write(*units_[u].blank(i), i, Layout::rows, 5);
                break;
            case 1:
                if (placed != nullptr && store_.evict(*units_[u].extents, i)) {
                    evicted += 1;
                    overwrite(*placed);
                    placed.reset();
                }
                break;
            default:
                if (placed != nullptr || draw(2) == 0) move(u, i);
        }
        release();
    }
    // Everything becomes resident, and what is old goes.
    void finish() {
        for (size_t u = 0; u < units_.size(); ++u)
            for (int64_t i = 0; i < units_[u].extents->count(); ++i)
                if (placed_[u][static_cast<size_t>(i)] == nullptr) move(u, i);
        if (!retired_.empty()) check(store_.wait(retired_.back().first));
        release();
        check(retired_.empty());
    }
    long moved = 0, evicted = 0, released = 0;

  private:
    size_t draw(size_t n) { return random_() % n; }
    void move(size_t u, int64_t i) {
        const Unit& unit = units_[u];
        const Layout layout = unit.extents->may_be_panels && draw(2) == 0 ? Layout::panels : Layout::rows;
        auto copy = unit.blank(i);
        unit.write(*copy, i, layout, unit.extents->n_rows(i) * row_words);
        const uint64_t version =
            store_.place(*unit.extents, i, reinterpret_cast<const uint8_t*>(copy->data()), layout);
        auto& placed = placed_[u][static_cast<size_t>(i)];
        std::swap(placed, copy);
        if (copy != nullptr) retired_.emplace_back(version, std::move(copy));
        moved += 1;
    }
    void release() {
        const uint64_t reached = store_.reached();
        for (; !retired_.empty() && retired_.front().first <= reached; retired_.pop_front()) {
            overwrite(*retired_.front().second);
            released += 1;
        }
    }
    static void overwrite(Copy& copy) {
        for (uint64_t& word : copy) word = gone;
    }

    Store& store_;
    std::vector<Unit> units_;
    std::minstd_rand random_;
    std::vector<std::vector<std::unique_ptr<Copy>>> placed_;
    std::deque<std::pair<uint64_t, std::unique_ptr<Copy>>> retired_;
};

void no_reader_sees_a_stale_or_torn_copy(unsigned seed) {
    Store store(40 * row_bytes);
    std::vector<Unit> units;
    const auto add = [&](int64_t rows, int64_t experts, bool panels) {
        units.push_back({&store.add(rows, experts, row_bytes, panels), units.size() + 1});
        return units.back();
    };
    add(160, 1, true);
    add(48, 3, true);
    add(7, 2, false);
    add(100, 1, false);
    constexpr int n_policies = 2, n_readers = 3, n_steps = 1500, n_runs = 300;
    std::vector<std::unique_ptr<Policy>> policies;
    for (unsigned p = 0; p < n_policies; ++p)
        policies.push_back(std::make_unique<Policy>(
            store, std::vector<Unit>(units.begin() + 2 * p, units.begin() + 2 * p + 2), seed + p));
    std::atomic<int> moving{n_policies};
    std::atomic<long> runs{0};
    std::vector<std::thread> threads;
    for (auto& policy : policies)
        threads.emplace_back([&] {
            for (int step = 0; step < n_steps || runs < n_runs; ++step) policy->step();
            policy->finish();
            moving -= 1;
        });
    for (unsigned r = 0; r < n_readers; ++r)
        threads.emplace_back([&, r] {
            std::minstd_rand random(seed + 100 + r);
            bool last = false;
            while (!last) {
                last = moving == 0;
                const bool urgent = random() % 4 == 0;
                const uint64_t version = store.enter(urgent);
                bool resident = true;
                for (const Unit& unit : units) resident = resident && unit.resident();
                // Extents switch meanwhile, but none goes.
                for (int pass = 0; resident && pass < 2; ++pass)
                    for (const Unit& unit : units) unit.read();
                store.leave(version, urgent);
                runs += resident;
                check(resident || !last);
                std::this_thread::yield();
            }
        });
    for (std::thread& thread : threads) thread.join();
    long moved = 0, evicted = 0, released = 0;
    for (const auto& policy : policies) {
        moved += policy->moved;
        evicted += policy->evicted;
        released += policy->released;
    }
    check(evicted > 0 && moved > n_steps && released == moved - evicted - [&] {
        long placed = 0;
        for (const Unit& unit : units) placed += unit.extents->count();
        return placed;
    }());
}

// What `reached` promises, step by step.
void versions_count_switches() {
    Store store;
    Extents& unit = store.add(4, 1, 8, false);
    const std::vector<uint8_t> a(32), b(32);
    check(unit.count() == 1 && unit.at(0).data == nullptr);
    const uint64_t first = store.place(unit, 0, a.data(), Layout::rows);
    check(store.reached() == first);
    const uint64_t before = store.enter(false);
    const uint64_t second = store.place(unit, 0, b.data(), Layout::rows);
    check(unit.at(0).data == b.data());
    check(store.reached() == first && second == first + 1);
    const uint64_t after = store.enter(true);
    check(!store.evict(unit, 0));
    store.leave(before, false);
    check(store.reached() == second && after == second);
    check(store.wait(second));
    check(!store.evict(unit, 0));
    store.leave(after, true);
    check(store.evict(unit, 0) && unit.at(0).data == nullptr);
    const uint64_t last = store.enter(false);
    const uint64_t unreached = store.place(unit, 0, a.data(), Layout::rows);
    std::thread waiting([&] { check(!store.wait(unreached)); });
    store.end();
    waiting.join();
    check(!store.gate().pass());
    store.leave(last, false);
}

void urgent_runs_close_the_gate() {
    Store store;
    const uint64_t first = store.enter(true), second = store.enter(true), third = store.enter(false);
    std::atomic<bool> passed{false};
    std::thread copying([&] {
        check(store.gate().pass());
        passed = true;
    });
    store.leave(first, true);
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    check(!passed);
    store.leave(second, true);
    copying.join();
    store.leave(third, false);
}

void extents_cover_each_row_once() {
    for (const int64_t rows : {1, 7, 16, 48, 100, 160, 4096})
        for (const int64_t experts : {1, 3})
            for (const int64_t bytes : {1, 700, 1 << 20}) {
                Extents extents(rows, experts, 24, bytes, false, nullptr);
                int64_t next = 0;
                for (int64_t i = 0; i < extents.count(); ++i) {
                    check(extents.first_row(i) == next);
                    next += extents.n_rows(i);
                    check(extents.n_rows(i) == rows || extents.n_rows(i) % 16 == 0);
                    check(extents.n_rows(i) * 24 <= std::max<int64_t>(bytes, 16 * 24) || rows % 16 != 0);
                    extents.publish(i, reinterpret_cast<const uint8_t*>(8 * (i + 1)), Layout::rows);
                }
                check(next == rows * experts);
                for (int64_t row = 0; row < rows * experts; ++row) {
                    const Extent found = extents.holding(row / rows, row % rows);
                    const auto i = static_cast<int64_t>(reinterpret_cast<uintptr_t>(found.data)) / 8 - 1;
                    check(extents.first_row(i) <= row && row < extents.first_row(i) + extents.n_rows(i));
                    check(found.first_row == extents.first_row(i) % rows);
                }
            }
}

void what_a_store_refuses() {
    check(refusal([] { Store(0); }) == "extent_bytes: found 0, expected at least 1");
    Store store;
    check(refusal([&] { store.add(0, 1, 1, false); }) == "a unit: found 1 matrices of 0 rows of 1 bytes");
    check(refusal([&] { store.add(INT64_MAX, 2, 1, false); }).starts_with("a unit: found 2 matrices of "));
    check(refusal([&] { store.add(15, 1, 1, true); }) ==
          "a unit: found panels of 15 rows, expected a multiple of 16");
    Extents& unit = store.add(16, 1, 1, false);
    const uint8_t data[16] = {};
    check(refusal([&] { store.place(unit, 1, data, Layout::rows); }) == "extent: found 1, expected 0 to 0");
    check(refusal([&] { store.evict(unit, -1); }) == "extent: found -1, expected 0 to 0");
    check(refusal([&] { store.place(unit, 0, data, Layout::panels); }) ==
          "extent 0: found panels, which this unit's cannot be");
}

}  // namespace

void test_store() {
    extents_cover_each_row_once();
    versions_count_switches();
    urgent_runs_close_the_gate();
    what_a_store_refuses();
    for (unsigned seed = 1; seed <= 4; ++seed) no_reader_sees_a_stale_or_torn_copy(seed);
}

}  // namespace clarion::tests
