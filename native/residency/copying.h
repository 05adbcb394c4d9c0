// Copying in the background, which others may hold up for a while, or end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace clarion {

// Opened, closed and ended by one thread at a time, passed by others.
class Gate {
  public:
    void open() { set(State::open); }
    void close() { set(State::closed); }
    void end() { set(State::ended); }
    // Waits while the gate is closed; false once it has ended.
    bool pass() const {
        state_.wait(State::closed, std::memory_order_acquire);
        return state_.load(std::memory_order_acquire) != State::ended;
    }

  private:
    enum class State : int { open, closed, ended };
    void set(State state) {
        // Nothing follows the end.
        for (State now = state_.load(); now != State::ended;)
            if (state_.compare_exchange_weak(now, state)) break;
        state_.notify_all();
    }
    std::atomic<State> state_{State::open};
};

// Copies `size` bytes, and passes the gate before every piece of 2 MB: a millisecond at most. False if it ended.
bool copy(uint8_t* to, const uint8_t* from, size_t size, const Gate& gate);

}  // namespace clarion
