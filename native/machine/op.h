// What a program is made of, seen from the machine: buffers, weights, operations, and one batch to run them on.
//
// The machine knows bytes, threads and vectors, and no model family. An operation is a subclass of Op. It reads its
// specification once, when the program is built. If it cannot do what that asks for, it throws std::invalid_argument there.
// During a run it must not allocate, lock or throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "machine/message.h"
#include "machine/tiling.h"
#include "residency/extents.h"

namespace clarion {

class KvCache;
class SlotStates;
struct Format;  // formats/entry.h

// How the elements of a buffer are stored.
enum class Kind {
    f32,   // plain rows of float
    fast,  // activations encoded in 8-bit blocks of 32 (machine/encoding.h)
    high,  // activations encoded in 16-bit blocks of 32
    bf16,  // activations rounded to BF16, on instruction sets that multiply them with BF16 weights
    i32,
};

// What the rows of a buffer stand for in a run. A buffer has `slots_per_token` rows for each of these.
enum class Rows {
    tokens,   // each token of the batch
    outputs,  // each token whose logits are wanted
    batch,    // the whole batch
};

struct Buffer {
    std::string name;
    Kind kind;
    Rows rows;
    int64_t width;            // elements in a row
    int64_t row_bytes;        // machine/encoding.h: row_bytes(kind, width)
    std::byte* data;          // in the arena
    int64_t slots_per_token;  // 1, or the number of experts that a token uses
};

// `experts` matrices of `rows` rows of `cols` weights, in one of the file's formats. The program has looked the format up:
// only the main module can. The extents say where the rows lie; they may switch to another copy at any time, so whoever reads
// rows asks anew for each panel.
struct Weight {
    std::string name;
    const Format* format;
    int64_t rows, cols, experts;
    int64_t row_bytes;
    const Extents* extents;
};

// States that sequences have together, as a batch brings them: the pages of a cache and whose they are, or slots, where a
// sequence's is the one of its number.
struct StateGroup {
    const KvCache* cache;
    SlotStates* slots;
    const int32_t*
        pages;  // [n_sequences, pages_per_sequence]; page i holds the positions from page_size * i on
    int64_t pages_per_sequence;
};

// Where a state of the program lies: in which of its groups, and in which layer there.
struct StatePlace {
    int64_t group, layer;
};

// A state that operations name by its number, found in a batch.
struct PagedState {
    const KvCache* cache;  // null: the batch has no such state
    int64_t layer;
    const int32_t* pages;  // [n_sequences, pages_per_sequence]
    int64_t pages_per_sequence;
};
struct SlotState {
    SlotStates* states;  // null: the batch has no such state
    int64_t layer;
};

// What one call of the model computes: tokens, each at a position of a sequence, and the states of the sequences.
struct Batch {
    int64_t n_tokens;
    int64_t n_outputs;
    const int32_t* tokens;     // [n_tokens]
    const int32_t* positions;  // [n_tokens]
    const int32_t* sequences;  // [n_tokens], each less than n_sequences
    const int32_t* outputs;    // [n_outputs], indices into tokens
    int64_t n_sequences;
    std::span<const StateGroup> groups;
    std::span<const StatePlace> states = {};  // the program's
    int threads = 1;                          // how many run it; a result must not depend on this number

    PagedState paged(int64_t state) const {
        const StateGroup* found = group(state);
        if (!found || !found->cache) return {};
        return {found->cache, states[static_cast<size_t>(state)].layer, found->pages,
                found->pages_per_sequence};
    }
    SlotState recurrent(int64_t state) const {
        const StateGroup* found = group(state);
        if (!found || !found->slots) return {};
        return {found->slots, states[static_cast<size_t>(state)].layer};
    }
    // The group that has a state; null where the program or the batch has none.
    const StateGroup* group(int64_t state) const {
        if (state < 0 || state >= static_cast<int64_t>(states.size())) return nullptr;
        const auto at = static_cast<size_t>(states[static_cast<size_t>(state)].group);
        return at < groups.size() ? &groups[at] : nullptr;
    }

    int64_t rows(const Buffer& b) const {
        switch (b.rows) {
            case Rows::tokens:
                return n_tokens * b.slots_per_token;
            case Rows::outputs:
                return n_outputs * b.slots_per_token;
            case Rows::batch:
                return 1;
        }
        return 0;
    }
};

// Memory that a thread may use while it runs one item. What it writes there is lost after the item.
struct Scratch {
    std::byte* data;
    size_t size;
    int thread;
};

// What a program says of one operation. Inputs, outputs and weights that it leaves out are null.
struct OpSpec {
    std::string op;
    std::vector<const Buffer*> inputs, outputs;
    std::vector<const Weight*> weights;
    std::map<std::string, int64_t> ints;
    std::map<std::string, double> floats;
    std::map<std::string, std::vector<double>> arrays;
    int64_t max_tokens;  // of the largest batch that this program will run
    int64_t threads;     // how many run it; a result must not depend on this number
    Tiling tiling;       // a result must not depend on it, either

    // Throws unless the program gives this many. Optional ones may be null, or missing at the end.
    struct Count {
        size_t least, most;
        Count(size_t n) : least(n), most(n) {}
        Count(size_t least, size_t most) : least(least), most(most) {}
    };
    void expect(Count inputs, Count outputs, Count weights) const;
    const Buffer& input(size_t i) const;  // throws when absent
    const Buffer& output(size_t i) const;
    const Weight* weight(size_t i) const;  // null when absent

    // These return a parameter by its name, and throw where it is absent. Kernels read all parameters at once with the structs
    // of operations.h, which machine/operations.py writes from the operation table.
    int64_t integer(const std::string& name) const;
    bool flag(const std::string& name) const;  // the program has it as an integer, 0 or 1
    double number(const std::string& name) const;
    const std::vector<double>& array(const std::string& name) const;

    [[noreturn]] void fail(Message what) const;  // throws std::invalid_argument, which names the operation
    // Throws if the program gives a parameter that nobody has read: otherwise an option would be ignored silently.
    void refuse_unread() const;

  private:
    mutable std::set<std::string> read_;
};

class Op {
  public:
    virtual ~Op() = default;
    // Throws std::invalid_argument if this operation cannot run the batch. It checks every index that it follows and that the
    // program has not checked. It is called for all operations before the first one begins.
    virtual void validate(const Batch&) const {}
    // How many bytes of scratch an item needs at most, in batches of up to spec.max_tokens tokens.
    virtual size_t scratch_bytes() const { return 0; }
    // Returns into how many independent items this batch splits. It runs on one thread, before any item of this operation.
    virtual int64_t begin(const Batch& batch) = 0;
    // Runs one item. Items run in any order, on any thread, and none touches memory that another item of this operation
    // writes. A thread takes neighbouring items one after the other, so these should read memory in order.
    virtual void run(const Batch& batch, int64_t item, const Scratch& scratch) = 0;
};

using OpFactory = std::unique_ptr<Op> (*)(const OpSpec&);

// Makes the operation that spec.op names; throws std::invalid_argument if there is none, or if it refuses the specification.
std::unique_ptr<Op> make_op(const OpSpec& spec);
std::vector<std::string> op_names();

}  // namespace clarion
