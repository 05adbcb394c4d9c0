// Operations that go through a sequence token by token and change a recurrent state (machine/slot_states.h).
//
// A state is cut into tiles, each of them one piece of its memory. A tile takes its tokens one after the other, whoever
// computes the other tiles: so a tile stays in L1 while the tokens of a prompt stream by, and what becomes of it depends
// neither on the threads nor on how a prompt is cut.
//
// In a run, each tile of a sequence begins with the state that SlotStates::begin names, takes the tokens that are applied
// again from the log, then those of the batch, and leaves copies of itself on the way where SlotRun wants them.
//
// Neighbouring tiles that read the same rows are one item and take 64 tokens each in turn, so that rows, which lie a page
// or more apart, come from L2 for all of them but the first. Where each sequence has one token, what is worth fetching ahead is
// the next tile.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/lanes.h"
#include "kernels/rows.h"
#include "machine/slot_states.h"
#include "simd/simd.h"

namespace clarion {

// Into L2, some tokens before they are needed: rows of tokens lie further apart than any hardware follows.
inline constexpr int64_t tokens_ahead = 4;
inline void prefetch_row(const float* row, int64_t n) {
    for (int64_t i = 0; i < n; i += simd::lanes) simd::prefetch(row + i);
}

class RecurrentOp : public Op {
  public:
    void validate(const Batch& batch) const final;
    int64_t begin(const Batch& batch) final;
    void run(const Batch& batch, int64_t item, const Scratch& scratch) final;

  protected:
    // The part of a state that one item computes at a time.
    struct Tile {
        int64_t offset, size;  // in floats, within the state of a sequence
    };
    // The tokens of one sequence in a batch.
    struct Tokens {
        int64_t first, n;  // in the batch
        int64_t position;  // of the first one
        SlotRun slot;

        int64_t end() const { return position + n; }
        // How many floats further the next tile lies, if that is read soon: where there is one token. Else 0, and to fetch
        // what is there already costs nothing.
        int64_t fetch(const Tile& tile) const { return n == 1 ? tile.size : 0; }
        // Whether a token is applied again: what it gave is known.
        bool again(int64_t p) const { return p < position; }
    };

    // Some of the tokens that a tile takes, by their positions: at most span_tokens.
    struct Span {
        int64_t first, last;
    };
    static constexpr int64_t span_tokens = 64;

    // e^decay(p) for each token of a span: together, since each alone would be waited for.
    template <typename Decay>
    static void decay_factors(Span span, const Decay& decay, float factors[span_tokens]) {
        for (int64_t p = span.first; p < span.last; ++p) factors[p - span.first] = decay(p);
        for (int64_t i = 0, n = span.last - span.first; i < n; i += simd::lanes)
            store_n(factors + i, simd::exp(load_n(factors + i, n - i)), n - i);
    }

    // What a token changes follows from its rows of `logged`, which are what is kept of it. The state has `size` floats, the
    // largest tile `tile_size`, and `alike` neighbouring tiles read the same rows.
    RecurrentOp(const OpSpec& spec, int64_t state, int64_t size, std::vector<const Buffer*> logged,
                int64_t tile_size, int64_t alike);

    // The tiles that a state is cut into, in the order of memory.
    std::vector<Tile> tiles_;

    // The row of a logged input, of a token of this run or of one that is applied again.
    const float* row(const Tokens& tokens, size_t input, int64_t p) const {
        if (tokens.again(p)) return tokens.slot.old_log(p) + log_offsets_[input];
        return batch_row(tokens, *logged_[input], p);
    }
    // The row of any buffer, of a token of this run.
    static float* batch_row(const Tokens& tokens, const Buffer& buffer, int64_t p) {
        return f32_row(buffer, tokens.first + p - tokens.position);
    }

    // Applies tokens to a tile: step(s, p), where s is the tile's memory and p the token's position.
    template <typename Step>
    static void apply(const Tokens& tokens, Span span, const Tile& tile, const Step& step) {
        const SlotRun& slot = tokens.slot;
        float* s = slot.current + tile.offset;
        const size_t bytes = static_cast<size_t>(tile.size) * sizeof(float);
        const auto save = [&](int64_t p) {
            for (int i = 0; i < 2; ++i)
                if (slot.save[i] && slot.save_at[i] == p) std::memcpy(slot.save[i] + tile.offset, s, bytes);
        };
        if (span.first == slot.replay_from) {
            if (!slot.start)
                std::memset(s, 0, bytes);
            else if (slot.start != slot.current)
                std::memcpy(s, slot.start + tile.offset, bytes);
            save(span.first);
        }
        for (int64_t p = span.first; p < span.last; ++p) {
            step(s, p);
            save(p + 1);
        }
    }

  private:
    // Some tokens of a sequence on tile number i.
    virtual void run_tile(const Tokens& tokens, Span span, int64_t i, const Scratch& scratch) const = 0;
    void keep(const Tokens& tokens) const;

    std::string op_;
    int64_t state_, size_, log_ = 0, tile_size_, alike_, threads_;
    std::vector<const Buffer*> logged_;
    std::vector<int64_t> log_offsets_;
    std::vector<Tokens> sequences_;  // of the batch that runs
    int64_t tiles_per_item_ = 1, items_ = 0;
};

}  // namespace clarion
