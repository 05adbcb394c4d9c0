#include "machine/program.h"

#include <algorithm>

#include "formats/entry.h"
#include "machine/checked.h"
#include "machine/encoding.h"
#include "machine/kv_cache.h"
#include "machine/modules.h"
#include "machine/slot_states.h"

namespace clarion {

namespace {

// All of values, each within 0 .. n-1.
void expect_indices(std::span<const int32_t> values, int64_t n, const char* what) {
    for (size_t i = 0; i < values.size(); ++i)
        if (values[i] < 0 || values[i] >= n)
            refuse({what, "[", i, "]: found ", values[i], ", expected 0 to ", n - 1});
}

}  // namespace

// From its beginning to its end, what reads weights is inside all of their stores.
class Program::Inside {
  public:
    Inside(std::vector<Entered>& stores, bool urgent) : stores_(stores), urgent_(urgent) {
        for (Entered& store : stores_) store.version = store.readers->enter(urgent_);
    }
    ~Inside() {
        for (const Entered& store : stores_) store.readers->leave(store.version, urgent_);
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

  private:
    std::vector<Entered>& stores_;
    const bool urgent_;
};

Program::Program(Pool& pool, ProgramSpec spec, int threads)
    : pool_(pool),
      threads_(threads > 0 ? threads : pool.threads()),
      max_tokens_(spec.max_tokens),
      max_outputs_(spec.max_outputs),
      arena_(spec.arena_bytes),
      states_(std::move(spec.states)) {
    expect_range(threads_, 1, pool.threads(), {"threads of the program"});
    expect_range(max_tokens_, 1, int64_t{1} << 20, {"max_tokens"});
    expect_range(max_outputs_, 0, max_tokens_, {"max_outputs"});
    size_t n_groups = 0;
    for (size_t i = 0; i < states_.size(); ++i) {
        expect_range(states_[i].group, 0, static_cast<int64_t>(states_.size()) - 1,
                     {"states[", i, "]: group"});
        expect_range(states_[i].layer, 0, most_elements, {"states[", i, "]: layer"});
        n_groups = std::max(n_groups, static_cast<size_t>(states_[i].group) + 1);
    }
    groups_.reserve(n_groups);
    pages_.resize(n_groups);
    buffers_.reserve(spec.buffers.size());
    weights_.reserve(spec.weights.size());
    for (auto& buffer : spec.buffers) add_buffer(std::move(buffer), spec.arena_bytes);
    for (auto& weight : spec.weights) add_weight(std::move(weight));
    const Inside inside(stores_, false);
    size_t scratch = 0;
    for (auto& op : spec.ops) {
        ops_.push_back(make_op(op_spec(std::move(op))));
        scratch = std::max(scratch, ops_.back()->scratch_bytes());
    }
    scratch_ = std::make_unique<ScratchSpace>(threads_, scratch);
    items_.resize(ops_.size());

    const auto most = static_cast<size_t>(max_tokens_);
    for (auto* list : {&tokens_, &positions_, &sequences_}) list->reserve(most);
    outputs_.reserve(static_cast<size_t>(max_outputs_));
    places_.reserve(most);
}

void Program::add_buffer(ProgramSpec::BufferSpec spec, int64_t arena_bytes) {
    const std::string where = text({"buffer '", spec.name, "'"});
    expect_range(spec.width, 1, most_elements, {where, ": width"});
    const int64_t most_slots = spec.rows == Rows::batch ? 1 : most_elements;
    expect_range(spec.slots_per_token, 1, most_slots, {where, ": slots_per_token"});
    Buffer buffer{
        std::move(spec.name), spec.kind, spec.rows, spec.width, row_bytes(spec.kind, spec.width), nullptr,
        spec.slots_per_token};
    const int64_t size = checked_product({max_rows(buffer), buffer.row_bytes}, {where});
    if (spec.offset < 0 || spec.offset % memory_alignment != 0)
        refuse({where, ": found offset ", spec.offset, ", expected a multiple of ", memory_alignment});
    if (checked_add(spec.offset, size, {where}) > arena_bytes)
        refuse({where, ": its ", size, " bytes at ", spec.offset, " end beyond the arena's ", arena_bytes});
    buffer.data = arena_.data() + spec.offset;
    buffers_.push_back(std::move(buffer));
}

void Program::add_weight(ProgramSpec::WeightSpec spec) {
    const std::string where = text({"weight '", spec.name, "'"});
    const Format* format = find_format(spec.format);
    if (!format) refuse({where, ": unknown format ", spec.format});
    expect_range(spec.rows, 1, most_elements, {where, ": rows"});
    expect_range(spec.cols, 1, most_elements, {where, ": cols"});
    expect_range(spec.experts, 1, most_elements, {where, ": experts"});
    if (spec.cols % format->block != 0)
        refuse({where, ": found ", spec.cols, " columns, expected a multiple of ", format->block,
                ", the block of ", format->name});
    const int64_t bytes = format->row_bytes(spec.cols);
    const int64_t size = checked_product({spec.experts, spec.rows, bytes}, {where});
    if (spec.extents == nullptr && spec.data.size() < static_cast<size_t>(size))
        refuse({where, ": found ", spec.data.size(), " bytes, expected ", size});
    if ((spec.extents ? spec.extents->may_be_panels : spec.panels) && !format->can_be_panels(spec.rows))
        refuse({where, ": found panels, which ", spec.rows, " rows of its format cannot be"});
    const Extents* found = extents(where, spec, bytes);
    weights_.push_back({std::move(spec.name), format, spec.rows, spec.cols, spec.experts, bytes, found});
}

// Those of the store, which this program enters from now on; or of bytes that stay, one extent for each matrix.
const Extents* Program::extents(const std::string& where, const ProgramSpec::WeightSpec& spec,
                                int64_t row_bytes) {
    if (const Extents* found = spec.extents) {
        if (found->rows != spec.rows || found->experts != spec.experts || found->row_bytes != row_bytes)
            refuse({where, ": the store has ", found->experts, " x ", found->rows, " rows of ",
                    found->row_bytes, " bytes, expected ", spec.experts, " x ", spec.rows, " of ",
                    row_bytes});
        const auto same = [&](const Entered& store) { return store.readers == found->readers; };
        if (found->readers != nullptr && std::none_of(stores_.begin(), stores_.end(), same))
            stores_.push_back({found->readers, 0});
        return found;
    }
    stay_.push_back(std::make_unique<Extents>(spec.rows, spec.experts, row_bytes, spec.rows * row_bytes,
                                              spec.panels, nullptr));
    Extents& own = *stay_.back();
    const auto* data = reinterpret_cast<const uint8_t*>(spec.data.data());
    for (int64_t i = 0; i < own.count(); ++i)
        own.publish(i, data + own.first_row(i) * row_bytes, spec.panels ? Layout::panels : Layout::rows);
    return &own;
}

OpSpec Program::op_spec(ProgramSpec::OperationSpec spec) const {
    const auto resolve = [&](const std::vector<int64_t>& indices, const auto& from, auto& to,
                             const char* what) {
        const auto n = static_cast<int64_t>(from.size());
        for (const int64_t i : indices) {
            if (i < -1 || i >= n) refuse({"operation '", spec.op, "': ", what, " ", i, ", of ", n});
            to.push_back(i < 0 ? nullptr : &from[static_cast<size_t>(i)]);
        }
    };
    OpSpec op;
    resolve(spec.inputs, buffers_, op.inputs, "input");
    resolve(spec.outputs, buffers_, op.outputs, "output");
    resolve(spec.weights, weights_, op.weights, "weight");
    op.op = std::move(spec.op);
    op.ints = std::move(spec.ints);
    op.floats = std::move(spec.floats);
    op.arrays = std::move(spec.arrays);
    op.max_tokens = max_tokens_;
    op.threads = threads_;
    op.tiling = pool_.tiling();
    return op;
}

int64_t Program::max_rows(const Buffer& buffer) const {
    Batch largest{};
    largest.n_tokens = max_tokens_;
    largest.n_outputs = max_outputs_;
    return largest.rows(buffer);
}

const Buffer& Program::buffer(const std::string& name) const {
    for (const Buffer& buffer : buffers_)
        if (buffer.name == name) return buffer;
    refuse({"buffer '", name, "': the program has none of this name"});
}

bool Program::run(const Batch& batch) {
    const std::lock_guard lock(one_run_);
    copy(batch);
    const Inside inside(stores_, has_prompt());
    expect_residents();
    for (const auto& op : ops_) op->validate(batch_);
    cancelled_.store(false, std::memory_order_relaxed);
    std::fill(items_.begin(), items_.end(), 0);
    return pool_.run(ops_, batch_, scratch_->pieces(), cancelled_, items_);
}

// Of every weight, whatever the batch uses of it: nothing goes while a run is inside.
void Program::expect_residents() const {
    for (const Weight& weight : weights_)
        for (int64_t i = 0; i < weight.extents->count(); ++i)
            if (weight.extents->at(i).data == nullptr)
                refuse({"weight '", weight.name, "': row ", weight.extents->first_row(i),
                        " and those after it are not resident"});
}

// Whether a sequence has several tokens in the batch, which are neighbours then. Somebody waits for the end of such a run, and
// it is bound by arithmetic, which what copies beside it takes away. Where each text has one token a step, steps are many:
// what had to wait for them all would never be done.
bool Program::has_prompt() const {
    return std::adjacent_find(sequences_.begin(), sequences_.end()) != sequences_.end();
}

// Everything that operations index memory with, checked in the copy, which nobody else can change.
void Program::copy(const Batch& batch) {
    expect_range(batch.n_tokens, 1, max_tokens_, {"tokens in the batch"});
    expect_range(batch.n_outputs, 0, max_outputs_, {"outputs in the batch"});
    const auto take = [](std::vector<int32_t>& list, const int32_t* from, int64_t n) {
        list.assign(from, from + n);
        return list.data();
    };
    batch_ = batch;
    batch_.tokens = take(tokens_, batch.tokens, batch.n_tokens);
    batch_.positions = take(positions_, batch.positions, batch.n_tokens);
    batch_.sequences = take(sequences_, batch.sequences, batch.n_tokens);
    batch_.outputs = take(outputs_, batch.outputs, batch.n_outputs);
    expect_indices(positions_, most_elements, "positions");
    expect_indices(sequences_, batch.n_sequences, "sequences");
    expect_indices(outputs_, batch.n_tokens, "outputs");
    // Groups beyond those of the program are left out: nothing names them.
    groups_.assign(batch.groups.begin(), batch.groups.begin() + static_cast<ptrdiff_t>(std::min(
                                                                    batch.groups.size(), pages_.size())));
    batch_.groups = groups_;
    batch_.states = states_;
    batch_.threads = threads_;
    check_layers();
    for (size_t i = 0; i < groups_.size(); ++i) {
        StateGroup& group = groups_[i];
        if (group.cache) {
            group.pages = take(pages_[i], group.pages, batch.n_sequences * group.pages_per_sequence);
            check_pages(group);
        }
        if (group.slots) check_slots(*group.slots);
    }
}

void Program::check_layers() const {
    for (size_t i = 0; i < states_.size(); ++i) {
        const StateGroup* group = batch_.group(static_cast<int64_t>(i));
        if (!group || !(group->cache || group->slots)) continue;
        const size_t layers = group->cache ? group->cache->layers().size() : group->slots->layers().size();
        if (static_cast<size_t>(states_[i].layer) >= layers)
            refuse({"state ", i, ": layer ", states_[i].layer, " of a group that has ", layers});
    }
}

// Each token's pages up to its own position, and that no two tokens are at the same place of the cache. What a group with a
// window has given back is page 0 or any other: nobody follows it.
void Program::check_pages(const StateGroup& group) {
    constexpr int64_t page_size = KvCache::page_size;
    places_.clear();
    int64_t sequence = -1, checked = 0;
    for (int64_t t = 0; t < batch_.n_tokens; ++t) {
        if (sequence != batch_.sequences[t]) {
            sequence = batch_.sequences[t];
            checked = 0;
        }
        const int64_t position = batch_.positions[t], last = position / page_size;
        if (last >= group.pages_per_sequence)
            refuse({"positions[", t, "]: found ", position, ", beyond ", group.pages_per_sequence,
                    " pages of ", page_size});
        const int32_t* pages = group.pages + sequence * group.pages_per_sequence;
        for (; checked <= last; ++checked)
            if (pages[checked] < 0 || pages[checked] >= group.cache->pages())
                refuse({"pages[", sequence, ", ", checked, "]: found ", pages[checked], ", expected 0 to ",
                        group.cache->pages() - 1});
        places_.push_back(pages[last] * page_size + position % page_size);
    }
    std::sort(places_.begin(), places_.end());
    const auto twice = std::adjacent_find(places_.begin(), places_.end());
    if (twice != places_.end())
        refuse({"two tokens of the batch write slot ", *twice % page_size, " of page ", *twice / page_size});
}

// That each sequence's tokens follow each other, from a position to which its slot can be taken.
void Program::check_slots(const SlotStates& states) {
    places_.clear();
    for (int64_t t = 0; t < batch_.n_tokens; ++t) {
        const int64_t sequence = batch_.sequences[t], position = batch_.positions[t];
        if (t > 0 && sequence == batch_.sequences[t - 1]) {
            if (position != batch_.positions[t - 1] + 1)
                refuse({"positions[", t, "]: found ", position, ", expected ", batch_.positions[t - 1] + 1,
                        ", behind the token before"});
            continue;
        }
        if (sequence >= states.slots())
            refuse({"sequences[", t, "]: found ", sequence, ", expected 0 to ", states.slots() - 1});
        if (!states.reaches(sequence, position))
            refuse(
                {"positions[", t, "]: found ", position, ", to which slot ", sequence, " cannot be taken"});
        places_.push_back(sequence);
    }
    std::sort(places_.begin(), places_.end());
    const auto twice = std::adjacent_find(places_.begin(), places_.end());
    if (twice != places_.end()) refuse({"sequences: the tokens of sequence ", *twice, " are not neighbours"});
}

}  // namespace clarion
