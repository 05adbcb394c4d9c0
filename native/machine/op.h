// What a plan is made of, seen from the machine: buffers, weights, operations, and one batch to run them on.
//
// The machine knows bytes, threads and vectors, and no model family. An operation is a subclass of Op: it
// reads its specification once, when the program is built, and refuses there what it cannot do
// (std::invalid_argument). During a run it may not allocate, lock or throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "machine/message.h"
#include "machine/tiling.h"
#include "residency/extents.h"

namespace clarion {

class KvCache;

// How the elements of a buffer are stored.
enum class Kind {
    f32,   // plain rows of float
    fast,  // activations encoded in 8-bit blocks of 32 (kernels/activations.h)
    high,  // activations encoded in 16-bit blocks of 32
    bf16,  // activations rounded to BF16, where the instruction set multiplies such with such weights
    i32,
};

// What a buffer has rows for in a run: `slots_per_token` rows for each.
enum class Rows {
    tokens,   // each token of the batch
    outputs,  // each token whose logits are wanted
    batch,    // all of it together
};

struct Buffer {
    std::string name;
    Kind kind;
    Rows rows;
    int64_t width;            // elements in a row
    int64_t row_bytes;        // kernels/activations.h: row_bytes(kind, width)
    std::byte* data;          // in the arena
    int64_t slots_per_token;  // 1, or as many as experts that a token uses
};

// `experts` matrices of `rows` rows of `cols` weights, in one of the file's formats. The extents say where the rows lie; they
// may switch to another copy at any time, so whoever reads rows asks anew for each panel.
struct Weight {
    std::string name;
    int format;  // GGUF type id
    int64_t rows, cols, experts;
    int64_t row_bytes;
    const Extents* extents;
};

// One call of the model: tokens with (sequence, position), and where each sequence's pages lie.
struct Batch {
    int64_t n_tokens;
    int64_t n_outputs;
    const int32_t* tokens;     // [n_tokens]
    const int32_t* positions;  // [n_tokens]
    const int32_t* sequences;  // [n_tokens], rows of `pages`
    const int32_t* pages;      // [n_sequences, pages_per_sequence]: page of positions page_size*i ...
    int64_t n_sequences;
    int64_t pages_per_sequence;
    const int32_t* outputs;  // [n_outputs], indices into tokens
    KvCache* cache;

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

// Memory that one thread may use within one item; nothing survives the item.
struct Scratch {
    std::byte* data;
    size_t size;
    int thread;
};

// The specification as the plan gives it. Absent entries of inputs, outputs and weights are null.
struct OpSpec {
    std::string op;
    std::vector<const Buffer*> inputs, outputs;
    std::vector<const Weight*> weights;
    std::map<std::string, int64_t> ints;
    std::map<std::string, double> floats;
    std::map<std::string, std::vector<double>> arrays;
    int64_t max_tokens;  // the largest batch this program will run
    int64_t threads;     // that will run it; a result must not depend on them
    Tiling tiling;       // nor on this

    // Throws unless the plan gives this many; optional entries may be null or missing at the end.
    struct Count {
        size_t least, most;
        Count(size_t n) : least(n), most(n) {}
        Count(size_t least, size_t most) : least(least), most(most) {}
    };
    void expect(Count inputs, Count outputs, Count weights) const;
    const Buffer& input(size_t i) const;  // throws when absent
    const Buffer& output(size_t i) const;
    const Weight* weight(size_t i) const;  // null when absent

    // A parameter by its name; throws where it is absent. Kernels read them all at once, with the structs of
    // operations.h, which machine/operations.py writes from the operation table.
    int64_t integer(const std::string& name) const;
    bool flag(const std::string& name) const;  // an integer, 0 or 1
    double number(const std::string& name) const;
    const std::vector<double>& array(const std::string& name) const;

    [[noreturn]] void fail(Message what) const;  // throws std::invalid_argument, which names the operation
    // Throws if the plan gives a parameter that nobody has asked for: an option that would be ignored
    // silently.
    void refuse_unread() const;

  private:
    mutable std::set<std::string> read_;
};

class Op {
  public:
    virtual ~Op() = default;
    // Throws std::invalid_argument if this operation cannot run the batch: every index that it follows and
    // that the program has not checked itself. Called for all operations before the first one begins.
    virtual void validate(const Batch&) const {}
    // Scratch that one item needs at most, in bytes, for batches of up to spec.max_tokens.
    virtual size_t scratch_bytes() const { return 0; }
    // How many independent items this batch splits into; runs on one thread, before any item of this op.
    virtual int64_t begin(const Batch& batch) = 0;
    // Item i. Items run in any order, on any thread; each writes memory that no other item of this op touches. A thread
    // takes neighbours one after the other, so they should read memory in order.
    virtual void run(const Batch& batch, int64_t item, const Scratch& scratch) = 0;
};

using OpFactory = std::unique_ptr<Op> (*)(const OpSpec&);

// The operation table (machine/operations.cpp): every name a plan may use. Throws std::invalid_argument.
std::unique_ptr<Op> make_op(const OpSpec& spec);
std::vector<std::string> op_names();

}  // namespace clarion
