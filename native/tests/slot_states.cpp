// Recurrent states against a naive model, which keeps the state at every position; and how a batch finds states.
#include "machine/slot_states.h"

#include <cstring>
#include <vector>

#include "machine/op.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

using Layer = SlotStates::Layer;

// What a token does to a state: each number is a rounded mix of itself and what the token brings, so no order of tokens, and
// none left out, gives the same numbers.
void apply(float* state, int64_t size, const float* inputs, int64_t log) {
    for (int64_t i = 0; i < size; ++i)
        state[i] = 0.75f * state[i] + inputs[i % log] * static_cast<float>(i + 1);
}

std::vector<float> inputs_of(int64_t layer, int32_t token, int64_t log) {
    std::vector<float> inputs;
    for (int64_t i = 0; i < log; ++i)
        inputs.push_back(static_cast<float>((token * 31 + layer * 7 + i * 13) % 101) / 7.0f);
    return inputs;
}

// The state of a layer after some tokens from the beginning.
std::vector<float> naive(int64_t layer, Layer shape, const std::vector<int32_t>& tokens) {
    std::vector<float> state(static_cast<size_t>(shape.size), 0.0f);
    for (const int32_t token : tokens)
        apply(state.data(), shape.size, inputs_of(layer, token, shape.log).data(), shape.log);
    return state;
}

// One sequence, and what it must hold.
struct Sequence {
    std::vector<int32_t> tokens;
    int64_t exact_from = 0;  // positions from here on were computed without a break
};

struct Saved {
    std::vector<int32_t> tokens;
};

class Model {
  public:
    Model(uint32_t seed) : states_(shapes_, slots, 3), random_(seed) {
        sequences_.resize(slots);
        saved_.resize(3);
    }

    void step() {
        const int64_t slot = below(slots);
        Sequence& s = sequences_[static_cast<size_t>(slot)];
        const auto at = static_cast<int64_t>(s.tokens.size());
        switch (below(10)) {
            case 0: {  // taken back
                const int64_t first = states_.first(slot, at);
                const int64_t exact = std::max(s.exact_from, at - SlotStates::most_rewind);
                check(first <= exact);
                s.tokens.resize(static_cast<size_t>(first + below(at - first + 1)));
                s.exact_from = static_cast<int64_t>(s.tokens.size());
                break;
            }
            case 1: {  // cancelled: some layers have run, others not
                const std::vector<int32_t> tokens = more(1 + below(40));
                for (int64_t layer = 0; layer < n_layers; ++layer)
                    if (below(2)) run(layer, slot, at, tokens);
                s.exact_from = at;
                break;
            }
            case 2: {
                const int64_t other = below(slots);
                states_.copy(slot, other);
                sequences_[static_cast<size_t>(other)] = s;
                break;
            }
            case 3: {
                const int64_t settled = states_.settled(slot, at), snapshot = below(3);
                check(at > s.exact_from ? settled == at : settled <= at);
                if (settled == 0) break;
                states_.save(slot, settled, snapshot);
                saved_[static_cast<size_t>(snapshot)] = {{s.tokens.begin(), s.tokens.begin() + settled}};
                break;
            }
            case 4: {
                const int64_t snapshot = below(3);
                const std::vector<int32_t>& tokens = saved_[static_cast<size_t>(snapshot)].tokens;
                if (tokens.empty()) break;
                states_.restore(snapshot, slot, static_cast<int64_t>(tokens.size()));
                s = {tokens, static_cast<int64_t>(tokens.size())};
                break;
            }
            case 5: {  // to a file and back
                const int64_t other = below(slots);
                if (at == 0) break;
                std::vector<std::vector<std::byte>> file;
                for (int64_t layer = 0; layer < n_layers; ++layer) {
                    file.emplace_back(static_cast<size_t>(states_.layer_bytes(layer)));
                    states_.write(layer, slot, at, file.back());
                }
                for (int64_t layer = 0; layer < n_layers; ++layer)
                    states_.read(layer, other, at, file[static_cast<size_t>(layer)]);
                sequences_[static_cast<size_t>(other)] = {s.tokens, at};
                break;
            }
            case 6:
                if (below(8) == 0) {
                    states_.reset(slot);
                    s = {};
                }
                break;
            default: {
                const std::vector<int32_t> tokens = more(1 + below(below(2) ? 40 : 4));
                for (int64_t layer = 0; layer < n_layers; ++layer) run(layer, slot, at, tokens);
                s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
            }
        }
    }

  private:
    static constexpr int64_t slots = 3, n_layers = 2;

    int64_t below(int64_t n) {
        return std::min(n - 1, static_cast<int64_t>((random_.next() * 0.5f + 0.5f) * static_cast<float>(n)));
    }
    std::vector<int32_t> more(int64_t n) {
        std::vector<int32_t> tokens;
        for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(below(1000)));
        return tokens;
    }

    // One layer of a run, as an operation does it; the state must be that of the naive model at each place.
    void run(int64_t layer, int64_t slot, int64_t at, const std::vector<int32_t>& tokens) {
        const Layer shape = shapes_[static_cast<size_t>(layer)];
        const auto n = static_cast<int64_t>(tokens.size());
        std::vector<int32_t> past = sequences_[static_cast<size_t>(slot)].tokens;
        const SlotRun run = states_.begin(layer, slot, at, n);
        std::vector<float> state(static_cast<size_t>(shape.size), 0.0f);
        if (run.start) std::copy_n(run.start, shape.size, state.data());
        check(at - run.replay_from <= SlotStates::most_rewind);
        for (int64_t p = run.replay_from; p < at; ++p)
            apply(state.data(), shape.size, run.old_log(p), shape.log);
        const auto right = [&] {
            const std::vector<float> expected = naive(layer, shape, past);
            check(std::memcmp(state.data(), expected.data(), 4 * expected.size()) == 0);
        };
        right();
        for (int64_t p = at; p <= at + n; ++p) {
            for (int i = 0; i < 2; ++i)
                if (run.save[i] && run.save_at[i] == p) {
                    check(run.save[i] != run.start && run.save[i] != run.current);
                    std::copy_n(state.data(), shape.size, run.save[i]);
                }
            if (p == at + n) break;
            const int32_t token = tokens[static_cast<size_t>(p - at)];
            const std::vector<float> inputs = inputs_of(layer, token, shape.log);
            if (float* row = run.new_log(p)) std::copy_n(inputs.data(), shape.log, row);
            apply(state.data(), shape.size, inputs.data(), shape.log);
            past.push_back(token);
        }
        for (int i = 0; i < 2; ++i) check(!run.save[i] || (run.save_at[i] >= at && run.save_at[i] <= at + n));
        std::copy_n(state.data(), shape.size, run.current);
        right();
    }

    const std::vector<Layer> shapes_{{5, 3}, {17, 1}};
    SlotStates states_;
    Random random_;
    std::vector<Sequence> sequences_;
    std::vector<Saved> saved_;
};

void states_are_those_of_a_naive_model() {
    for (uint32_t seed = 1; seed <= 20; ++seed) {
        Model model(seed);
        for (int i = 0; i < 300; ++i) model.step();
    }
}

void bad_slots_are_refused() {
    SlotStates states({{4, 2}}, 2, 1);
    check(refusal([&] { states.begin(1, 0, 0, 1); }) == "layer of a slot: found 1, expected 0 to 0");
    check(refusal([&] { states.begin(0, 2, 0, 1); }) == "slot: found 2, expected 0 to 1");
    check(refusal([&] { states.begin(0, 0, 3, 1); }) ==
          "slot 0, layer 0: found position 3, which its state at 0 cannot be taken to");
    check(refusal([&] { states.begin(0, 0, -1, 1); }).starts_with("slot 0, layer 0: found position -1"));
    check(refusal([&] { states.save(0, 1, 0); }).starts_with("slot 0, layer 0: found position 1"));
    check(refusal([&] { states.restore(1, 0, 1); }) == "snapshot: found 1, expected 0 to 0");
    check(refusal([&] { states.copy(0, 2); }) == "slot: found 2, expected 0 to 1");
    std::vector<std::byte> bytes(static_cast<size_t>(states.layer_bytes(0)));
    check(refusal([&] { states.read(0, 0, 40, bytes); }) ==
          "position of a state: found 0, expected 24 to 40");
    check(refusal([&] { SlotStates({{0, 1}}, 1, 0); }) ==
          "size of a layer: found 0, expected 1 to 2147483648");
    check(refusal([&] {
              SlotStates({{1 << 30, 1}}, 1 << 30, 0);
          }).ends_with("the size is negative or too large"));
}

// A batch finds a state in the group and the layer that the program says, and nothing where there is none.
void batches_find_states() {
    SlotStates slots({{4, 2}, {4, 2}}, 2, 0);
    const int32_t pages[2] = {};
    const std::vector<StateGroup> groups{{nullptr, nullptr, pages, 2}, {nullptr, &slots, nullptr, 0}};
    const std::vector<StatePlace> places{{1, 1}, {0, 0}, {2, 0}};
    Batch batch{};
    batch.groups = groups;
    batch.states = places;
    check(batch.recurrent(0).states == &slots && batch.recurrent(0).layer == 1);
    check(!batch.paged(0).cache);
    check(!batch.paged(1).cache && !batch.recurrent(1).states);
    check(!batch.recurrent(2).states && !batch.recurrent(3).states && !batch.recurrent(-1).states);
}

}  // namespace

void test_slot_states() {
    states_are_those_of_a_naive_model();
    bad_slots_are_refused();
    batches_find_states();
}

}  // namespace clarion::tests
