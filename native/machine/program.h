// A plan, ready to run: buffers laid out in one arena, weights in place, operations built.
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

// What the plan gives. Operations name buffers and weights by index, -1 for an absent one.
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
        std::span<const std::byte> data;
        bool panels;
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
};

class Program {
  public:
    // Checks every size, offset, index and parameter: throws std::invalid_argument. The weights' data and the
    // pool must outlive the program. It runs on so many of the pool's threads; 0: on all that there are now.
    Program(Pool& pool, ProgramSpec spec, int threads = 0);
    int threads() const { return threads_; }

    // Runs one batch; false if it was cancelled, which leaves the outputs and the cache's new positions
    // undefined. The batch is copied and checked before anything is touched: throws std::invalid_argument.
    // Runs of several threads queue up.
    bool run(const Batch& batch);

    // Ends the run in progress after its current operation; without one it does nothing. From any thread.
    void cancel() { cancelled_.store(true, std::memory_order_relaxed); }

    // From the next run on, reads a matrix from other bytes that say the same, as rows or as panels: all of it, or what whole
    // panels it begins with; the rest is then read where it was given at first. They must outlive the program. From any
    // thread, also during a run. Throws std::invalid_argument for an unknown weight, for a vector (operations take those
    // when they are built), for bytes that are no whole panels, and for panels where there can be none.
    void move_weight(int64_t index, std::span<const std::byte> data, bool panels);
    // How many moves were made: nobody reads the earlier bytes of so many, in the order of the calls. From any thread.
    int64_t moved();

    // Throws std::invalid_argument for an unknown name.
    const Buffer& buffer(const std::string& name) const;
    int64_t max_rows(const Buffer& buffer) const;

  private:
    void add_buffer(ProgramSpec::BufferSpec spec, int64_t arena_bytes);
    void add_weight(ProgramSpec::WeightSpec spec);
    static void check_panels(const std::string& where, int format, int64_t rows, bool panels);
    OpSpec op_spec(ProgramSpec::OperationSpec spec) const;
    void copy(const Batch& batch);
    void check_pages();
    void make_moves();

    Pool& pool_;
    int threads_;
    int64_t max_tokens_, max_outputs_;
    ZeroMemory arena_;
    std::vector<Buffer> buffers_;
    std::vector<Weight> weights_;
    std::vector<std::unique_ptr<Op>> ops_;
    std::unique_ptr<ScratchSpace> scratch_;

    std::mutex one_run_;  // guards what follows
    Batch batch_{};
    std::vector<int32_t> tokens_, positions_, sequences_, pages_, outputs_;
    std::vector<int64_t> slots_;
    std::atomic<bool> cancelled_{false};

    // Moves that were asked for. Whoever holds one_run_ makes them, between two runs: weights_ is then written by one
    // thread and read by none, and the pool publishes it with the run's first operation.
    struct Move {
        size_t weight;
        std::span<const std::byte> data;
        bool panels;
    };
    std::mutex moves_mutex_;  // guards what follows; taken after one_run_
    std::vector<Move> moves_;
    int64_t moved_ = 0;
};

}  // namespace clarion
