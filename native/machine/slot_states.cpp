#include "machine/slot_states.h"

#include <algorithm>
#include <cstring>

#include "machine/checked.h"

namespace clarion {

namespace {

constexpr int64_t rewind = SlotStates::most_rewind, log_rows = SlotRun::log_rows;
constexpr int64_t line = memory_alignment / static_cast<int64_t>(sizeof(float));
static_assert(log_rows >= 2 * rewind, "a short run writes behind the rows that it reads");

int64_t padded(int64_t floats) { return (floats + line - 1) / line * line; }

void copy_floats(float* to, const float* from, int64_t n) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace

SlotStates::SlotStates(std::vector<Layer> layers, int64_t slots, int64_t snapshots)
    : layers_(std::move(layers)), slots_(slots), snapshots_(snapshots) {
    expect_range(slots, 1, INT32_MAX, {"slots"});
    expect_range(snapshots, 0, INT32_MAX, {"snapshots"});
    int64_t slot = 0, snapshot = 0;  // floats
    for (const Layer& layer : layers_) {
        expect_range(layer.size, 1, most_elements, {"size of a layer"});
        expect_range(layer.log, 1, most_elements, {"log of a layer"});
        const int64_t size = padded(layer.size), stride = padded(layer.log);
        places_.push_back({slot, snapshot, size, 3 * size, stride});
        slot = checked_add(slot, 3 * size + 2 * log_rows * stride, {"states"});
        snapshot = checked_add(snapshot, size, {"states"});
    }
    constexpr auto bytes = static_cast<int64_t>(sizeof(float));
    slot_bytes_ = checked_product({slot, bytes}, {"states"});
    snapshot_bytes_ = checked_product({snapshot, bytes}, {"states"});
    memory_ = std::make_unique<ZeroMemory>(checked_product({slots, slot_bytes_}, {"states"}));
    saved_ = std::make_unique<ZeroMemory>(checked_product({snapshots, snapshot_bytes_}, {"snapshots"}));
    headers_.resize(static_cast<size_t>(slots) * layers_.size());
}

// The copy nearest before a position from which logged tokens lead there, or -1.
int SlotStates::Header::nearest(int64_t position) const {
    int found = -1;
    for (int i = 0; i < 2; ++i) {
        const auto [tag, log] = copies[i];
        if (tag < 0 || tag > position || position - tag > rewind) continue;
        if (tag < position && (rows[log].from > tag || rows[log].to < position)) continue;
        if (found < 0 || tag > copies[found].tag) found = i;
    }
    return found;
}

bool SlotStates::Header::reaches(int64_t position) const {
    return position == 0 || position == at || nearest(position) >= 0;
}

SlotRun SlotStates::begin(int64_t layer, int64_t slot, int64_t position, int64_t n) {
    expect_layer(layer);
    expect_slot(slot);
    expect_range(n, 1, most_elements, {"tokens of a run"});
    Header& h = header(layer, slot);
    if (position < 0 || !h.reaches(position)) refuse_position(layer, slot, position);
    const int64_t end = position + n;
    int base = h.nearest(position);
    SlotRun run{};
    run.current = state(layer, slot, 0);
    run.log_stride = places_[static_cast<size_t>(layer)].stride;
    run.replay_from = position;
    if (position > 0) run.start = run.current;
    if (position > 0 && position != h.at) {
        run.start = state(layer, slot, 1 + base);
        run.replay_from = h.copies[base].tag;
        run.old_rows = log(layer, slot, h.copies[base].log);
    }
    // What lies behind the position is no longer so.
    for (Copy& copy : h.copies)
        if (copy.tag > position) copy.tag = -1;
    for (Rows& rows : h.rows) rows.to = std::min(rows.to, position);

    int saves = 0;
    const auto save = [&](int which, int64_t tag, int in_log) {
        run.save[saves] = state(layer, slot, 1 + which);
        run.save_at[saves++] = tag;
        h.copies[which] = {tag, in_log};
    };
    const bool is_long = n > rewind;
    if (base < 0) {
        h.copies[0].tag = h.copies[1].tag = -1;
        h.rows[0] = {position, position};
        if (position > 0 || !is_long) {
            base = 0;
            save(base, position, 0);
        }
    }
    int into = base < 0 ? 0 : h.copies[base].log;
    if (is_long) {
        into = 1 - into;
        run.log_from = end - rewind;
        save(1 - std::max(base, 0), run.log_from, into);
        h.rows[into] = {run.log_from, end};
    } else {
        const int64_t next = h.copies[base].tag + rewind;
        if (next >= position && next <= end) save(1 - base, next, into);
        run.log_from = position;
        const int64_t from = h.rows[into].to < position ? position : h.rows[into].from;
        h.rows[into] = {std::max(from, end - log_rows), end};
    }
    run.new_rows = log(layer, slot, into);
    h.at = end;
    return run;
}

bool SlotStates::reaches(int64_t slot, int64_t position) const {
    expect_slot(slot);
    const auto n = static_cast<int64_t>(layers_.size());
    for (int64_t layer = 0; layer < n; ++layer)
        if (!header(layer, slot).reaches(position)) return false;
    return position >= 0;
}

int64_t SlotStates::first(int64_t slot, int64_t position) const {
    if (!reaches(slot, position)) refuse({"slot ", slot, ": position ", position, " cannot be reached"});
    int64_t first = position;
    while (first > 0 && position - first < rewind && reaches(slot, first - 1)) --first;
    return first;
}

int64_t SlotStates::settled(int64_t slot, int64_t position) const {
    expect_slot(slot);
    const auto n = static_cast<int64_t>(layers_.size());
    for (int64_t p = position; p > 0 && position - p <= rewind; --p) {
        int64_t layer = 0;
        while (layer < n && settled_at(layer, slot, p)) ++layer;
        if (layer == n) return p;
    }
    return 0;
}

void SlotStates::reset(int64_t slot) {
    expect_slot(slot);
    for (size_t layer = 0; layer < layers_.size(); ++layer) header(static_cast<int64_t>(layer), slot) = {};
}

void SlotStates::copy(int64_t slot, int64_t other) {
    expect_slot(slot);
    expect_slot(other);
    if (slot == other) return;
    for (int64_t layer = 0; layer < static_cast<int64_t>(layers_.size()); ++layer) {
        const Header& from = header(layer, slot);
        const Place& place = places_[static_cast<size_t>(layer)];
        header(layer, other) = from;
        if (from.at > 0) copy_floats(state(layer, other, 0), state(layer, slot, 0), place.size);
        for (int i = 0; i < 2; ++i) {
            if (from.copies[i].tag >= 0)
                copy_floats(state(layer, other, 1 + i), state(layer, slot, 1 + i), place.size);
            if (from.rows[i].from < from.rows[i].to)
                copy_floats(log(layer, other, i), log(layer, slot, i), log_rows * place.stride);
        }
    }
}

void SlotStates::save(int64_t slot, int64_t position, int64_t snapshot) {
    expect_slot(slot);
    expect_snapshot(snapshot);
    const auto n = static_cast<int64_t>(layers_.size());
    for (int64_t layer = 0; layer < n; ++layer)
        if (!settled_at(layer, slot, position)) refuse_position(layer, slot, position);
    for (int64_t layer = 0; layer < n; ++layer)
        copy_floats(in_snapshot(layer, snapshot), settled_at(layer, slot, position),
                    places_[static_cast<size_t>(layer)].size);
}

void SlotStates::restore(int64_t snapshot, int64_t slot, int64_t position) {
    expect_slot(slot);
    expect_snapshot(snapshot);
    expect_range(position, 1, most_elements, {"position"});
    reset(slot);
    for (int64_t layer = 0; layer < static_cast<int64_t>(layers_.size()); ++layer) {
        copy_floats(state(layer, slot, 0), in_snapshot(layer, snapshot),
                    places_[static_cast<size_t>(layer)].size);
        header(layer, slot).at = position;
    }
}

int64_t SlotStates::layer_bytes(int64_t layer) const {
    expect_layer(layer);
    const Layer& l = layers_[static_cast<size_t>(layer)];
    return static_cast<int64_t>(sizeof(int64_t)) +
           static_cast<int64_t>(sizeof(float)) * (l.size + rewind * l.log);
}

void SlotStates::write(int64_t layer, int64_t slot, int64_t position, std::span<std::byte> to) const {
    expect_slot(slot);
    expect_range(static_cast<int64_t>(to.size()), layer_bytes(layer), layer_bytes(layer),
                 {"bytes of a layer"});
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const Header& h = header(layer, slot);
    if (position <= 0 || !h.reaches(position)) refuse_position(layer, slot, position);
    const auto row = static_cast<size_t>(l.log) * sizeof(float);
    const auto whole = static_cast<size_t>(l.size) * sizeof(float);
    const float* from = settled_at(layer, slot, position);
    int64_t tag = position;
    std::fill(to.begin(), to.end(), std::byte{0});
    std::byte* out = to.data() + sizeof(tag);
    if (!from) {
        const int base = h.nearest(position);
        from = state(layer, slot, 1 + base);
        tag = h.copies[base].tag;
        for (int64_t p = tag; p < position; ++p)
            std::memcpy(out + whole + static_cast<size_t>(p - tag) * row,
                        log(layer, slot, h.copies[base].log) +
                            p % log_rows * places_[static_cast<size_t>(layer)].stride,
                        row);
    }
    std::memcpy(to.data(), &tag, sizeof(tag));
    std::memcpy(out, from, whole);
}

void SlotStates::read(int64_t layer, int64_t slot, int64_t position, std::span<const std::byte> from) {
    expect_slot(slot);
    expect_range(static_cast<int64_t>(from.size()), layer_bytes(layer), layer_bytes(layer),
                 {"bytes of a layer"});
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const auto row = static_cast<size_t>(l.log) * sizeof(float);
    const auto whole = static_cast<size_t>(l.size) * sizeof(float);
    int64_t tag = 0;
    std::memcpy(&tag, from.data(), sizeof(tag));
    expect_range(position, 1, most_elements, {"position"});
    expect_range(tag, std::max<int64_t>(0, position - rewind), position, {"position of a state"});
    const std::byte* in = from.data() + sizeof(tag);
    Header& h = header(layer, slot) = {};
    h.at = tag == position ? position : -1;
    std::memcpy(state(layer, slot, tag == position ? 0 : 1), in, whole);
    if (tag == position) return;
    h.copies[0] = {tag, 0};
    h.rows[0] = {tag, position};
    for (int64_t p = tag; p < position; ++p)
        std::memcpy(log(layer, slot, 0) + p % log_rows * places_[static_cast<size_t>(layer)].stride,
                    in + whole + static_cast<size_t>(p - tag) * row, row);
}

const SlotStates::Header& SlotStates::header(int64_t layer, int64_t slot) const {
    return headers_[static_cast<size_t>(slot) * layers_.size() + static_cast<size_t>(layer)];
}

SlotStates::Header& SlotStates::header(int64_t layer, int64_t slot) {
    return headers_[static_cast<size_t>(slot) * layers_.size() + static_cast<size_t>(layer)];
}

float* SlotStates::state(int64_t layer, int64_t slot, int64_t which) const {
    const Place& place = places_[static_cast<size_t>(layer)];
    return reinterpret_cast<float*>(memory_->data() + slot * slot_bytes_) + place.offset + which * place.size;
}

float* SlotStates::log(int64_t layer, int64_t slot, int which) const {
    const Place& place = places_[static_cast<size_t>(layer)];
    return state(layer, slot, 0) + place.log + which * log_rows * place.stride;
}

float* SlotStates::in_snapshot(int64_t layer, int64_t snapshot) const {
    return reinterpret_cast<float*>(saved_->data() + snapshot * snapshot_bytes_) +
           places_[static_cast<size_t>(layer)].snapshot;
}

// The state of a layer at a position, if it is there; null otherwise, and for position 0.
const float* SlotStates::settled_at(int64_t layer, int64_t slot, int64_t position) const {
    const Header& h = header(layer, slot);
    if (position <= 0) return nullptr;
    if (h.at == position) return state(layer, slot, 0);
    for (int i = 0; i < 2; ++i)
        if (h.copies[i].tag == position) return state(layer, slot, 1 + i);
    return nullptr;
}

void SlotStates::expect_slot(int64_t slot) const { expect_range(slot, 0, slots_ - 1, {"slot"}); }

void SlotStates::expect_layer(int64_t layer) const {
    expect_range(layer, 0, static_cast<int64_t>(layers_.size()) - 1, {"layer of a slot"});
}

void SlotStates::expect_snapshot(int64_t snapshot) const {
    expect_range(snapshot, 0, snapshots_ - 1, {"snapshot"});
}

void SlotStates::refuse_position(int64_t layer, int64_t slot, int64_t position) const {
    refuse({"slot ", slot, ", layer ", layer, ": found position ", position, ", which its state at ",
            header(layer, slot).at, " cannot be taken to"});
}

}  // namespace clarion
