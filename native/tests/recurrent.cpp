// The operations with a recurrent state, in one program: the same bits in one piece and in many, on one thread and on two, and
// after tokens were taken back. Every size is odd, so a kernel that reads or writes beyond its own is seen.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "machine/encoding.h"
#include "machine/program.h"
#include "machine/slot_states.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

constexpr int64_t n_head = 3, dim_k = 5, dim_v = 37, columns = 141, d_state = 7, taps = 4, n_tokens = 70;
constexpr int64_t widths[] = {dim_k, dim_k, n_head * dim_v, n_head, n_head, columns, d_state};
enum Value { q, k, v, decay, beta, x, b, o, y, mixed, scanned };

const std::vector<SlotStates::Layer>& layers() {
    static const std::vector<SlotStates::Layer> shapes{
        {n_head * dim_k * dim_v, dim_k + n_head * dim_v + 2 * n_head},
        {columns * (taps - 1), columns},
        {columns * d_state, 2 * columns + d_state},
        {n_head * dim_v * d_state, n_head * dim_v + n_head + d_state}};
    return shapes;
}

struct Recurrent {
    ProgramSpec spec{};
    std::vector<std::unique_ptr<float[]>> memory;
    Random random;

    Recurrent() {
        spec.max_tokens = n_tokens;
        for (const int64_t width : widths) buffer(width);
        for (const int64_t width : {n_head * dim_v, columns, columns, n_head * dim_v}) buffer(width);
        spec.ops.push_back({"delta_rule",
                            {q, k, v, decay, beta},
                            {o},
                            {},
                            {{"state", 0},
                             {"n_head", n_head},
                             {"n_head_k", 1},
                             {"dim_k", dim_k},
                             {"dim_v", dim_v},
                             {"tiled", 0}},
                            {{"scale", 0.5}},
                            {}});
        spec.ops.push_back({"causal_conv",
                            {x},
                            {y},
                            {weight(columns, taps), weight(1, columns)},
                            {{"state", 1}, {"taps", taps}, {"silu", 1}},
                            {},
                            {}});
        spec.ops.push_back({"selective_scan",
                            {y, x, b, b},
                            {mixed},
                            {weight(columns, d_state), weight(1, columns)},
                            {{"state", 2}},
                            {},
                            {}});
        spec.ops.push_back(
            {"state_space_scan",
             {o, beta, b, b},
             {scanned},
             {weight(1, n_head), weight(1, n_head)},
             {{"state", 3}, {"n_head", n_head}, {"head_dim", dim_v}, {"n_group", 1}, {"d_state", d_state}},
             {},
             {}});
        for (int64_t layer = 0; layer < 4; ++layer) spec.states.push_back({0, layer});
    }
    void buffer(int64_t width) {
        spec.buffers.push_back(
            {std::to_string(spec.buffers.size()), Kind::f32, Rows::tokens, width, spec.arena_bytes, 1});
        spec.arena_bytes += n_tokens * row_bytes(Kind::f32, width);
    }
    int64_t weight(int64_t rows, int64_t cols) {
        const auto n = static_cast<size_t>(rows * cols);
        memory.push_back(std::make_unique<float[]>(n));
        for (size_t i = 0; i < n; ++i) memory.back()[i] = 0.5f * random.next() - 0.5f;
        spec.weights.push_back(
            {"w", 0, rows, cols, 1, {reinterpret_cast<std::byte*>(memory.back().get()), 4 * n}, false});
        return static_cast<int64_t>(spec.weights.size()) - 1;
    }
};

// The rows of a text, [n_tokens][width] of each input.
std::vector<std::vector<float>> text() {
    Random random;
    std::vector<std::vector<float>> rows;
    for (const int64_t width : widths)
        for (auto& values = rows.emplace_back(static_cast<size_t>(n_tokens * width)); float& value : values)
            value = 0.4f * random.next();
    return rows;
}

// Runs tokens first .. last - 1, and puts the rows of all results behind `found`.
void run(Program& program, SlotStates& states, const std::vector<std::vector<float>>& rows, int64_t first,
         int64_t last, std::vector<float>* found) {
    std::vector<int32_t> zeros(static_cast<size_t>(last - first), 0), positions;
    for (int64_t p = first; p < last; ++p) positions.push_back(static_cast<int32_t>(p));
    for (size_t i = 0; i < rows.size(); ++i) {
        const Buffer& buffer = program.buffer(std::to_string(i));
        for (int64_t p = first; p < last; ++p)
            std::memcpy(buffer.data + (p - first) * buffer.row_bytes,
                        &rows[i][static_cast<size_t>(p * buffer.width)],
                        static_cast<size_t>(buffer.width) * sizeof(float));
    }
    const StateGroup group{nullptr, &states, nullptr, 0};
    const Batch batch{last - first, 0, zeros.data(), positions.data(), zeros.data(), nullptr, 1, {&group, 1}};
    const long before = allocations();
    check(program.run(batch));
    check(allocations() == before);
    if (!found) return;
    for (int64_t t = 0; t < last - first; ++t)
        for (const int result : {o, y, mixed, scanned}) {
            const Buffer& buffer = program.buffer(std::to_string(result));
            const auto* row = reinterpret_cast<const float*>(buffer.data + t * buffer.row_bytes);
            found->insert(found->end(), row, row + buffer.width);
        }
}

}  // namespace

void test_recurrent() {
    const auto rows = text();
    Recurrent recurrent;
    std::vector<float> expected;
    for (const int threads : {1, 2}) {
        Pool pool(threads);
        Program program(pool, recurrent.spec);
        for (const int64_t length : {n_tokens, int64_t{1}, int64_t{7}, int64_t{17}}) {
            SlotStates states(layers(), 1, 0);
            std::vector<float> found;
            for (int64_t first = 0; first < n_tokens; first += length) {
                const int64_t last = std::min(first + length, n_tokens);
                if (length == 7 && first > 0)
                    run(program, states, rows, first, n_tokens, nullptr);  // taken back
                run(program, states, rows, first, last, &found);
            }
            if (expected.empty()) expected = found;
            check(found.size() == expected.size() &&
                  std::memcmp(found.data(), expected.data(), 4 * found.size()) == 0);
        }
    }
}

}  // namespace clarion::tests
