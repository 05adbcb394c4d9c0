#include "kernels/recurrence.h"

namespace clarion {

RecurrentOp::RecurrentOp(const OpSpec& spec, int64_t state, int64_t size, std::vector<const Buffer*> logged,
                         int64_t tile_size, int64_t alike)
    : op_(spec.op),
      state_(state),
      size_(size),
      tile_size_(tile_size),
      alike_(alike),
      threads_(spec.threads),
      logged_(std::move(logged)) {
    for (const Buffer* buffer : logged_) {
        log_offsets_.push_back(log_);
        log_ += buffer->width;
    }
    sequences_.reserve(static_cast<size_t>(spec.max_tokens));
}

void RecurrentOp::validate(const Batch& batch) const {
    const SlotState at = batch.recurrent(state_);
    if (!at.states) refuse({"operation '", op_, "' needs slots with state ", state_});
    const auto [size, log] = at.states->layers()[static_cast<size_t>(at.layer)];
    if (size != size_ || log != log_)
        refuse({"operation '", op_, "', state ", state_, ": the slots have ", size, " numbers and ", log,
                " of each token, expected ", size_, " and ", log_});
}

int64_t RecurrentOp::begin(const Batch& batch) {
    const SlotState at = batch.recurrent(state_);
    sequences_.clear();
    for (int64_t t = 0, end = 0; t < batch.n_tokens; t = end) {
        while (end < batch.n_tokens && batch.sequences[end] == batch.sequences[t]) ++end;
        const int64_t position = batch.positions[t], n = end - t;
        sequences_.push_back({t, n, position, at.states->begin(at.layer, batch.sequences[t], position, n)});
    }
    const auto tiles = static_cast<int64_t>(tiles_.size()), n = static_cast<int64_t>(sequences_.size());
    const int64_t enough = item_elements / (tile_size_ * std::max<int64_t>(1, batch.n_tokens));
    const int64_t for_all = std::max<int64_t>(1, tiles * n / threads_);  // or threads would have nothing
    tiles_per_item_ = std::min(std::max<int64_t>(alike_, enough), for_all);
    items_ = (tiles + tiles_per_item_ - 1) / tiles_per_item_ + 1;
    return items_ * n;
}

// Of each sequence, some tiles are an item, and what is kept of its tokens is one, the first.
void RecurrentOp::run(const Batch&, int64_t item, const Scratch& scratch) {
    const Tokens& tokens = sequences_[static_cast<size_t>(item / items_)];
    const int64_t first = (item % items_ - 1) * tiles_per_item_;
    if (first < 0) {
        keep(tokens);
        return;
    }
    const int64_t last = std::min(first + tiles_per_item_, static_cast<int64_t>(tiles_.size()));
    for (int64_t p = tokens.slot.replay_from; p < tokens.end(); p += span_tokens) {
        const Span span{p, std::min(p + span_tokens, tokens.end())};
        for (int64_t i = first; i < last; ++i) run_tile(tokens, span, i, scratch);
    }
}

void RecurrentOp::keep(const Tokens& tokens) const {
    for (int64_t p = tokens.position; p < tokens.end(); ++p)
        if (float* log = tokens.slot.new_log(p))
            for (size_t i = 0; i < logged_.size(); ++i)
                std::memcpy(log + log_offsets_[i], batch_row(tokens, *logged_[i], p),
                            static_cast<size_t>(logged_[i]->width) * sizeof(float));
}

}  // namespace clarion
