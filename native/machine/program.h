// A program, ready to run: buffers laid out in one arena, weights in place, operations built.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "machine/memory.h"
#include "machine/op.h"
#include "machine/pool.h"

namespace clarion {

// A program as Python gives it. Operations name buffers and weights by index, -1 for an absent one.
struct ProgramSpec {
    struct BufferSpec {
        std::string name;
        Kind kind;
        Rows rows;
        int64_t width, offset, slots_per_token;
    };
    struct WeightSpec {
        std::string name;
        int format;
        int64_t rows, cols, experts;
        std::span<const std::byte> data;  // all of it, where it stays; or
        bool panels;
        const Extents* extents = nullptr;  // wherever a store has it
    };
    struct OperationSpec {
        std::string op;
        std::vector<int64_t> inputs, outputs, weights;
        std::map<std::string, int64_t> ints;
        std::map<std::string, double> floats;
        std::map<std::string, std::vector<double>> arrays;
    };

    int64_t arena_bytes, max_tokens, max_outputs;
    std::vector<BufferSpec> buffers;
    std::vector<WeightSpec> weights;
    std::vector<OperationSpec> ops;
    std::vector<StatePlace> states;  // where each state lies that operations name by its number
};

class Program {
  public:
    // Checks every size, offset, index and parameter: throws std::invalid_argument. The weights' data or extents and the
    // pool must outlive the program. Vectors are read here and not again. It runs on so many of the pool's threads; 0: on
    // all that there are now.
    Program(Pool& pool, ProgramSpec spec, int threads = 0);
    int threads() const { return threads_; }

    // Runs one batch; false if it was cancelled, which leaves the outputs and the new positions of the states
    // undefined. The batch is copied and checked before anything is touched: throws std::invalid_argument, also where a
    // weight is not resident. Runs of several threads queue up.
    bool run(const Batch& batch);

    // Ends the run in progress after its current operation; without one it does nothing. From any thread.
    void cancel() { cancelled_.store(true, std::memory_order_relaxed); }

    // Into how many items each operation of the last run split; 0 for those that it did not begin.
    std::span<const int64_t> items() const { return items_; }

    // Throws std::invalid_argument for an unknown name.
    const Buffer& buffer(const std::string& name) const;
    int64_t max_rows(const Buffer& buffer) const;

  private:
    void add_buffer(ProgramSpec::BufferSpec spec, int64_t arena_bytes);
    void add_weight(ProgramSpec::WeightSpec spec);
    const Extents* extents(const std::string& where, const ProgramSpec::WeightSpec& spec, int64_t row_bytes);
    void expect_residents() const;
    bool has_prompt() const;
    OpSpec op_spec(ProgramSpec::OperationSpec spec) const;
    void copy(const Batch& batch);
    void check_layers() const;
    void check_pages(const StateGroup& group);
    void check_slots(const SlotStates& states);

    Pool& pool_;
    int threads_;
    int64_t max_tokens_, max_outputs_;
    ZeroMemory arena_;
    std::vector<StatePlace> states_;
    std::vector<Buffer> buffers_;
    std::vector<Weight> weights_;
    std::vector<std::unique_ptr<Extents>> stay_;  // of weights that no store has
    std::vector<std::unique_ptr<Op>> ops_;
    std::vector<int64_t> items_;  // of each, in the last run
    std::unique_ptr<ScratchSpace> scratch_;

    // The stores of the weights, and what this run entered each with.
    struct Entered {
        Readers* readers;
        uint64_t version;
    };
    class Inside;

    std::mutex one_run_;  // guards what follows
    std::vector<Entered> stores_;
    Batch batch_{};
    std::vector<int32_t> tokens_, positions_, sequences_, outputs_;
    std::vector<StateGroup> groups_;
    std::vector<std::vector<int32_t>> pages_;  // of each group
    std::vector<int64_t> places_;              // of the tokens
    std::atomic<bool> cancelled_{false};
};

}  // namespace clarion
