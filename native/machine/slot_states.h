// Recurrent states: numbers that each token of a sequence changes, so that what they were before is gone.
//
// A slot has the state of one sequence, in each layer `size` floats. So that the last tokens can be taken back, and a run
// that was cancelled computed again, without a copy for every token, a layer keeps of its slot
//
//     current           the state at the position that the last run reached
//     two copies        the state at earlier positions, their tags
//     two logs          for 32 tokens each, the `log` floats from which an operation can apply the token again
//
// and every position from 16 before the last one on (but not from before the sequence was restored, gone back or its run
// cancelled) is either the current one, or one to which at most 16 logged tokens lead from a copy:
//
// - Short runs, of up to 16 tokens, log all of them, and copy the state in passing when it is 16 beyond the newest copy, into
//   the older one.
// - Long runs copy the state 16 before their end into the older copy, and log the last 16 tokens in the other log. The newest
//   copy and the log behind it stay as they were: they lead to where the run began, if it is cancelled.
// - A run that begins where no copy leads (the sequence is new, or was restored) copies the state at its start. A long one
//   from position 0 need not: there the state is zeros.
//
// Snapshots are whole states, of all layers, apart from any slot. Untouched memory costs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "machine/memory.h"

namespace clarion {

// What an operation does for one sequence in one run. It begins with `start`, applies the logged tokens replay_from to
// position - 1, then its own, and leaves the state in `current`. `start` may be `current`, and nothing else overlaps.
struct SlotRun {
    static constexpr int64_t log_rows = 32;

    const float* start;   // null: zeros
    int64_t replay_from;  // the position of `start`
    float* current;
    // Copies to make when the state has come to these positions, the first perhaps before any token; null: none.
    float* save[2];
    int64_t save_at[2];

    const float* old_rows;  // [log_rows, log_stride]
    float* new_rows;
    int64_t log_stride;
    int64_t log_from;

    // The inputs of a token that is applied again; and where those of token p go, or null if they are not kept.
    const float* old_log(int64_t p) const { return old_rows + p % log_rows * log_stride; }
    float* new_log(int64_t p) const { return p < log_from ? nullptr : new_rows + p % log_rows * log_stride; }
};

class SlotStates {
  public:
    static constexpr int64_t most_rewind = 16;
    // Under this name a capsule carries a `SlotStates*` from the module that has the states to the one that runs programs.
    static constexpr const char* capsule = "clarion.SlotStates";

    struct Layer {
        int64_t size, log;  // floats of the state, and of what is kept of a token
    };

    // Throws std::invalid_argument for sizes that are not positive or too large, std::bad_alloc.
    SlotStates(std::vector<Layer> layers, int64_t slots, int64_t snapshots);

    const std::vector<Layer>& layers() const { return layers_; }
    int64_t slots() const { return slots_; }
    int64_t snapshots() const { return snapshots_; }
    int64_t slot_bytes() const { return slot_bytes_; }
    int64_t snapshot_bytes() const { return snapshot_bytes_; }

    // What an operation does for n tokens from `position` on. The layer's state then counts as that of position + n: the
    // operation must do all of it. Throws std::invalid_argument where `reaches` is false.
    SlotRun begin(int64_t layer, int64_t slot, int64_t position, int64_t n);

    // The rest is called between runs. It throws std::invalid_argument for slots and snapshots that there are not, and for
    // positions that a slot cannot be taken to.

    // Whether all layers of a slot can be taken to a position.
    bool reaches(int64_t slot, int64_t position) const;
    // The first position from which on each one up to `position` can be reached, at most 16 before it.
    int64_t first(int64_t slot, int64_t position) const;
    // The last position, up to `position`, of which all layers have the state itself; 0 if there is none.
    int64_t settled(int64_t slot, int64_t position) const;

    void reset(int64_t slot);                                     // to position 0
    void copy(int64_t slot, int64_t other);                       // `other` becomes what `slot` is
    void save(int64_t slot, int64_t position, int64_t snapshot);  // of a settled position
    void restore(int64_t snapshot, int64_t slot, int64_t position);

    // A layer of a slot at any position that it reaches, as bytes: the position of a state, the state, and up to 16 rows
    // of the log behind it.
    int64_t layer_bytes(int64_t layer) const;
    void write(int64_t layer, int64_t slot, int64_t position, std::span<std::byte> to) const;
    void read(int64_t layer, int64_t slot, int64_t position, std::span<const std::byte> from);

  private:
    struct Copy {
        int64_t tag = -1;  // -1: none
        int log = 0;       // which one has the tokens behind it
    };
    struct Rows {
        int64_t from = 0, to = 0;  // the tokens that a log has
    };
    struct Header {
        int64_t at = 0;  // the position of `current`; -1: there is none
        Copy copies[2];
        Rows rows[2];

        int nearest(int64_t position) const;
        bool reaches(int64_t position) const;
    };
    struct Place {
        int64_t offset, snapshot;   // in floats, within a slot, and within a snapshot
        int64_t size, log, stride;  // padded
    };

    const Header& header(int64_t layer, int64_t slot) const;
    Header& header(int64_t layer, int64_t slot);
    float* state(int64_t layer, int64_t slot, int64_t which) const;  // 0: current, 1 and 2: the copies
    float* log(int64_t layer, int64_t slot, int which) const;
    float* in_snapshot(int64_t layer, int64_t snapshot) const;
    const float* settled_at(int64_t layer, int64_t slot, int64_t position) const;
    void expect_slot(int64_t slot) const;
    void expect_layer(int64_t layer) const;
    void expect_snapshot(int64_t snapshot) const;
    [[noreturn]] void refuse_position(int64_t layer, int64_t slot, int64_t position) const;

    std::vector<Layer> layers_;
    std::vector<Place> places_;
    int64_t slots_, snapshots_, slot_bytes_ = 0, snapshot_bytes_ = 0;
    std::vector<Header> headers_;  // [slots, layers]
    std::unique_ptr<ZeroMemory> memory_, saved_;
};

}  // namespace clarion
