#include "machine/program.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "formats/entry.h"
#include "kernels/activations.h"
#include "kernels/direct.h"
#include "machine/kv_cache.h"
#include "machine/modules.h"
#include "residency/store.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

// A program under construction. Every weight has memory of exactly its size, and so has the arena: a kernel that reads
// or writes a byte beyond is seen.
struct Builder {
    ProgramSpec spec{};
    std::vector<std::unique_ptr<std::byte[]>> memory;
    Random random;

    Builder(int64_t max_tokens) {
        spec.max_tokens = max_tokens;
        spec.max_outputs = max_tokens;
    }

    int64_t buffer(int64_t width, Kind kind = Kind::f32, Rows rows = Rows::tokens, int64_t slots = 1) {
        const auto index = static_cast<int64_t>(spec.buffers.size());
        spec.buffers.push_back({std::to_string(index), kind, rows, width, spec.arena_bytes, slots});
        spec.arena_bytes += spec.max_tokens * slots * row_bytes(kind, width);
        return index;
    }

    int64_t weight(int64_t rows, int64_t cols, int format = 0, int64_t experts = 1) {
        const int64_t bytes = experts * rows * find_format(format)->row_bytes(cols);
        memory.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(bytes)));
        std::byte* data = memory.back().get();
        for (int64_t i = 0; i < bytes; i += 4) {
            // Zero is a valid block of every format; floats get values.
            const float x = format == 0 ? random.next() : 0.0f;
            std::memcpy(data + i, &x, static_cast<size_t>(std::min<int64_t>(4, bytes - i)));
        }
        spec.weights.push_back({"w", format, rows, cols, experts, {data, static_cast<size_t>(bytes)}, false});
        return static_cast<int64_t>(spec.weights.size()) - 1;
    }

    using Indices = std::vector<int64_t>;
    void op(const char* name, Indices inputs, Indices outputs, Indices weights = {},
            std::map<std::string, int64_t> ints = {}, std::map<std::string, double> floats = {},
            std::map<std::string, std::vector<double>> arrays = {}) {
        spec.ops.push_back({name, std::move(inputs), std::move(outputs), std::move(weights), std::move(ints),
                            std::move(floats), std::move(arrays)});
    }
};

struct Shape {
    int64_t n_embd, n_head, n_head_kv, head_dim, n_rot, n_ff, window;
    int64_t neox, n_expert, n_used;
};

constexpr int64_t n_vocab = 19;

// One layer of a mixture-of-experts transformer, with every operation in it. The last buffer holds the logits.
void add_model(Builder& b, const Shape& s, Kind kind, int format) {
    const int64_t q_width = s.n_head * s.head_dim, kv_width = s.n_head_kv * s.head_dim;
    const int64_t x = b.buffer(s.n_embd), r = b.buffer(s.n_rot), normed = b.buffer(s.n_embd),
                  a = b.buffer(s.n_embd, kind);
    const int64_t q = b.buffer(q_width), k = b.buffer(kv_width), v = b.buffer(kv_width),
                  o = b.buffer(q_width);
    const int64_t oe = b.buffer(q_width, kind), scores = b.buffer(s.n_expert);
    const int64_t ids = b.buffer(s.n_used, Kind::i32), w = b.buffer(s.n_used);
    const auto slots = [&](int64_t width, Kind slot_kind) {
        return b.buffer(width, slot_kind, Rows::tokens, s.n_used);
    };
    const int64_t gate = slots(s.n_ff, Kind::f32), up = slots(s.n_ff, Kind::f32), both = slots(s.n_ff, kind);
    const int64_t down = slots(s.n_embd, Kind::f32), silu = b.buffer(s.n_embd), product = b.buffer(s.n_embd);
    const int64_t few = b.buffer(s.n_embd, Kind::f32, Rows::outputs),
                  logits = b.buffer(n_vocab, Kind::f32, Rows::outputs);

    b.op("embed", {}, {x}, {b.weight(n_vocab, s.n_embd)}, {}, {{"scale", 1.5}});
    std::vector<double> inv_freq;
    for (int64_t i = 0; i < s.n_rot / 2; ++i) inv_freq.push_back(std::pow(100.0, -double(i)));
    b.op("rope_table", {}, {r}, {}, {}, {{"magnitude", 1.0}}, {{"inv_freq", inv_freq}});
    b.op("rms_norm", {x}, {normed, a}, {b.weight(1, s.n_embd)}, {}, {{"eps", 1e-5}});
    b.op("linear", {a}, {q, k, v},
         {b.weight(q_width, s.n_embd, format), b.weight(kv_width, s.n_embd, format),
          b.weight(kv_width, s.n_embd, format), b.weight(1, q_width), b.weight(1, kv_width), -1});
    const std::map<std::string, int64_t> heads{
        {"n_head", s.n_head}, {"head_dim", s.head_dim}, {"n_rot", s.n_rot}, {"neox", s.neox}};
    auto rope_kv = heads, attention = heads, rope_k = heads;
    for (auto* ints : {&rope_kv, &attention}) {
        (*ints)["state"] = 0;
        (*ints)["n_head_kv"] = s.n_head_kv;
        (*ints)["dim_v"] = s.head_dim;
    }
    b.op("rope_kv", {q, k, v, r}, {q}, {b.weight(1, s.head_dim), -1}, rope_kv, {{"eps", 1e-6}});
    attention.erase("n_rot");
    attention.erase("neox");
    attention["window"] = s.window;
    attention["chunked"] = s.window > 0;
    attention["causal"] = 1;
    b.op("attention", {q}, {o}, {b.weight(1, s.n_head)}, attention, {{"scale", 0.3}, {"cap", s.neox * 9.0}},
         {{"slopes", std::vector<double>(s.neox ? static_cast<size_t>(s.n_head) : 0, 0.1)}});
    rope_k["n_head"] = s.n_head_kv;
    b.op("rope", {k, r}, {k}, {-1}, rope_k, {{"eps", 0.0}});
    b.op("kv_write", {k, v}, {}, {}, {{"state", 1}});
    b.spec.states = {{0, 0}, {0, 1}};
    b.op("encode", {o}, {oe});
    b.op("linear", {oe, x}, {x}, {b.weight(s.n_embd, q_width, format), -1});
    b.op("encode", {x}, {a});
    b.op("linear", {a}, {scores}, {b.weight(s.n_expert, s.n_embd, format), -1});
    b.op("route", {scores}, {ids, w}, {b.weight(1, s.n_expert)},
         {{"k", s.n_used},
          {"gating", s.neox},
          {"n_group", s.n_expert / s.n_used},
          {"n_group_used", 1},
          {"group_top", 1},
          {"normalize", s.neox}},
         {{"scale", 1.5}});
    b.op("expert_linear", {a, ids}, {gate, up},
         {b.weight(s.n_ff, s.n_embd, format, s.n_expert), b.weight(s.n_ff, s.n_embd, format, s.n_expert), -1,
          b.weight(s.n_expert, s.n_ff)});
    b.op("swiglu", {gate, up}, {both});
    b.op("expert_linear", {both, ids}, {down}, {b.weight(s.n_embd, s.n_ff, format, s.n_expert), -1});
    b.op("expert_sum", {down, w, x}, {x});
    b.op("silu", {x}, {silu});
    b.op("mul", {x, silu}, {product});
    b.op("add", {product, x}, {product});
    b.op("select", {product}, {few});
    b.op("linear", {few}, {logits}, {b.weight(n_vocab, s.n_embd), -1});
}

struct Tokens {
    std::vector<int32_t> tokens, positions, sequences, outputs;

    void add(int32_t token, int32_t position, int32_t sequence) {
        outputs.push_back(static_cast<int32_t>(tokens.size()));
        tokens.push_back(token);
        positions.push_back(position);
        sequences.push_back(sequence);
    }
};

StateGroup group_of(const KvCache& cache, const std::vector<int32_t>& pages, int64_t n_sequences) {
    return {&cache, nullptr, pages.data(), static_cast<int64_t>(pages.size()) / n_sequences};
}

// Runs the tokens in batches of at most n; all rows of a buffer, the logits, one after the other.
std::vector<float> run(Program& program, KvCache& cache, const Tokens& t, const std::vector<int32_t>& pages,
                       int64_t n_sequences, int64_t n, const char* name = "19") {
    std::vector<float> logits;
    const auto total = static_cast<int64_t>(t.tokens.size());
    const Buffer& out = program.buffer(name);
    const StateGroup group = group_of(cache, pages, n_sequences);
    for (int64_t first = 0; first < total; first += n) {
        const int64_t rows = std::min(n, total - first);
        const Batch batch{rows,
                          rows,
                          t.tokens.data() + first,
                          t.positions.data() + first,
                          t.sequences.data() + first,
                          t.outputs.data(),
                          n_sequences,
                          {&group, 1}};
        check(program.run(batch));
        for (int64_t i = 0; i < rows; ++i) {
            const auto* row = reinterpret_cast<const float*>(out.data + i * out.row_bytes);
            logits.insert(logits.end(), row, row + out.width);
        }
    }
    return logits;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

// Two sequences of 40 and 71 tokens, interleaved in runs of five.
Tokens two_sequences() {
    Tokens t;
    int32_t at[2] = {0, 0};
    const int32_t length[2] = {40, 71};
    for (int32_t i = 0; at[0] < length[0] || at[1] < length[1]; ++i) {
        const int32_t s = i / 5 % 2;
        if (at[s] < length[s]) t.add((7 * i + s) % n_vocab, at[s]++, s);
    }
    return t;
}

void same_bits_everywhere(const Shape& shape, Kind kind, int format, KvCache::Formats formats) {
    const Tokens t = two_sequences();
    const auto n = static_cast<int64_t>(t.tokens.size());
    const std::vector<int32_t> pages = {3, 0, 1, 4};
    const KvCache::Layer layer{shape.n_head_kv, shape.head_dim, shape.head_dim};
    std::vector<float> expected;
    for (const int threads : {1, 3})
        for (const int64_t batch : {n, int64_t{11}, int64_t{1}}) {
            Builder b(n);
            add_model(b, shape, kind, format);
            Pool pool(threads);
            Program program(pool, b.spec);
            KvCache cache({layer, layer}, 5, formats);
            const std::vector<float> logits = run(program, cache, t, pages, 2, batch);
            for (const float x : logits) check(std::isfinite(x));
            if (expected.empty()) expected = logits;
            check(same_bits(logits, expected));
            const long before = allocations();
            const StateGroup group = group_of(cache, pages, 2);
            const Batch one{
                1, 1,          t.tokens.data(), t.positions.data(), t.sequences.data(), t.outputs.data(),
                2, {&group, 1}};
            check(program.run(one));
            check(allocations() == before);
        }
}

void latent_rows_have_the_same_bits_everywhere(KvFormat format) {
    const Tokens t = two_sequences();
    const auto n = static_cast<int64_t>(t.tokens.size());
    constexpr int64_t n_head = 5, dim = 37, dim_v = 20;
    std::vector<float> expected;
    for (const int threads : {1, 3})
        for (const int64_t batch : {n, int64_t{11}, int64_t{1}}) {
            Builder b(n);
            const int64_t rows = b.buffer(dim), q = b.buffer(n_head * dim), o = b.buffer(n_head * dim_v);
            b.op("embed", {}, {rows}, {b.weight(n_vocab, dim)}, {}, {{"scale", 1.0}});
            b.op("embed", {}, {q}, {b.weight(n_vocab, n_head * dim)}, {}, {{"scale", 1.0}});
            b.op("latent_write", {rows}, {}, {}, {{"state", 0}});
            b.op("latent_attention", {q}, {o}, {},
                 {{"state", 0}, {"n_head", n_head}, {"dim", dim}, {"dim_v", dim_v}}, {{"scale", 0.3}});
            b.spec.states = {{0, 0}};
            Pool pool(threads);
            Program program(pool, b.spec);
            KvCache cache({{1, dim, 0}}, 5, {format, format});
            const std::vector<float> found = run(program, cache, t, {3, 0, 1, 4}, 2, batch, "2");
            if (expected.empty()) expected = found;
            check(same_bits(found, expected));
        }
}

void forked_pages_are_copies() {
    KvCache cache({{2, 5, 3}, {1, 16, 16}}, 3, {KvFormat::f32, KvFormat::f32});
    const auto last = [&](int64_t page) -> float& {
        return reinterpret_cast<float*>(cache.values(1, page, 0))[KvCache::page_size * 16 - 1];
    };
    last(0) = 7.0f;
    cache.copy_page(0, 2);
    check(last(2) == 7.0f);
    check(last(1) == 0.0f);
    check(refusal([&] { cache.copy_page(0, 3); }) == "page: found 3, expected 0 to 2");
}

void cancelling_from_another_thread() {
    Builder b(64);
    const int64_t x = b.buffer(4096), y = b.buffer(4096);
    for (int i = 0; i < 400; ++i) b.op("silu", {x}, {y});
    Pool pool(2);
    Program program(pool, b.spec);
    const std::vector<int32_t> zeros(64, 0);
    const Batch batch{64, 0, zeros.data(), zeros.data(), zeros.data(), nullptr, 1, {}};
    std::atomic<bool> over{false};
    std::thread other([&] {
        while (!over) {
            program.cancel();
            std::this_thread::yield();
        }
    });
    bool cancelled = false;
    for (int i = 0; i < 100 && !cancelled; ++i) cancelled = !program.run(batch);
    over = true;
    other.join();
    check(cancelled);
    check(program.run(batch));
}

// The weights of a specification, of which a store takes the matrices.
struct Stored {
    Store store{1};  // extents of a panel each, where there are panels
    std::vector<Extents*> units;

    explicit Stored(ProgramSpec& spec) {
        for (auto& weight : spec.weights) {
            const int64_t rows = weight.rows * weight.experts;
            units.push_back(nullptr);
            if (rows == 1) continue;
            const int64_t row_bytes = static_cast<int64_t>(weight.data.size()) / rows;
            units.back() =
                &store.add(weight.rows, weight.experts, row_bytes, can_be_panels(weight.format, weight.rows));
            weight.extents = units.back();
        }
    }
    static std::span<const std::byte> part(const Extents& unit, int64_t i, std::span<const std::byte> all) {
        return all.subspan(static_cast<size_t>(unit.first_row(i) * unit.row_bytes),
                           static_cast<size_t>(unit.n_rows(i) * unit.row_bytes));
    }
    uint64_t place(size_t w, int64_t i, std::span<const std::byte> bytes, Layout layout) {
        return store.place(*units[w], i, reinterpret_cast<const uint8_t*>(bytes.data()), layout);
    }
    void place_all(size_t w, std::span<const std::byte> all) {
        for (int64_t i = 0; i < units[w]->count(); ++i) place(w, i, part(*units[w], i, all), Layout::rows);
    }
};

// Extents move to and fro while batches run. Bytes that nobody reads any more are overwritten at once: a run that still read
// them would give other results, and the thread sanitizer sees it even where it does not.
void weights_move_during_runs(const Shape& shape, Kind kind, int format) {
    const Tokens t = two_sequences();
    const std::vector<int32_t> pages = {3, 0, 1, 4};
    const KvCache::Layer layer{shape.n_head_kv, shape.head_dim, shape.head_dim};
    Builder b(11);
    add_model(b, shape, kind, format);
    const auto weights = b.spec.weights;
    Stored stored(b.spec);
    for (size_t w = 0; w < weights.size(); ++w)
        if (stored.units[w]) stored.place_all(w, weights[w].data);
    Pool pool(3);
    Program program(pool, b.spec);
    KvCache cache({layer, layer}, 5, {KvFormat::f32, KvFormat::f32});
    const std::vector<float> expected = run(program, cache, t, pages, 2, 11);
    std::atomic<bool> over{false};
    std::thread mover([&] {
        Random random;
        std::vector<std::vector<std::byte>> places[2];
        for (const auto& weight : weights)
            for (auto& place : places) place.emplace_back(weight.data.begin(), weight.data.end());
        for (size_t round = 0; round < 20; ++round)
            for (size_t w = 0; w < weights.size(); ++w)
                for (int64_t i = 0; stored.units[w] && i < stored.units[w]->count(); ++i) {
                    const Extents& unit = *stored.units[w];
                    const auto rows = Stored::part(unit, i, weights[w].data);
                    const auto offset = rows.data() - weights[w].data.data();
                    const std::span<std::byte> from(places[round % 2][w].data() + offset, rows.size());
                    const std::span<std::byte> to(places[1 - round % 2][w].data() + offset, rows.size());
                    const bool panels = unit.may_be_panels && random.next() > 0;
                    if (panels)
                        interleave(weights[w].format, weights[w].cols,
                                   reinterpret_cast<const uint8_t*>(rows.data()),
                                   reinterpret_cast<uint8_t*>(to.data()), static_cast<int64_t>(to.size()));
                    else
                        std::copy(rows.begin(), rows.end(), to.begin());
                    const uint64_t version = stored.place(w, i, to, panels ? Layout::panels : Layout::rows);
                    check(stored.store.wait(version));
                    std::fill(from.begin(), from.end(), std::byte{0xff});
                }
        over = true;
        // What the program reads now has to live as long as it runs.
        while (over) std::this_thread::yield();
    });
    while (!over) check(same_bits(run(program, cache, t, pages, 2, 11), expected));
    check(same_bits(run(program, cache, t, pages, 2, 11), expected));
    over = false;
    mover.join();
}

// A run is refused unless all of its weights are resident, and entering stores allocates nothing.
void weights_are_resident_or_refused() {
    const Tokens t{{1}, {0}, {0}, {0}};
    Builder b(11);
    const Shape shape{64, 2, 1, 32, 32, 64, 0, 1, 2, 1};
    add_model(b, shape, Kind::f32, 0);
    const auto weights = b.spec.weights;
    Stored stored(b.spec);
    Pool pool(1);
    Program program(pool, b.spec);
    KvCache cache({{1, 32, 32}, {1, 32, 32}}, 1, {KvFormat::f32, KvFormat::f32});
    const StateGroup group = group_of(cache, t.positions, 1);
    const Batch batch{
        1, 1, t.tokens.data(), t.positions.data(), t.sequences.data(), t.outputs.data(), 1, {&group, 1}};
    const auto refused = [&] { return refusal([&] { program.run(batch); }); };
    check(refused() == "weight 'w': row 0 and those after it are not resident");
    for (size_t w = 0; w < weights.size(); ++w)
        if (stored.units[w]) stored.place_all(w, weights[w].data);
    check(program.run(batch));
    const long before = allocations();
    check(program.run(batch));
    check(allocations() == before);
    check(stored.store.evict(*stored.units[2], 1));
    check(refused() == "weight 'w': row 16 and those after it are not resident");
    stored.place_all(2, weights[2].data);
    check(program.run(batch));
}

void bad_extents_are_refused() {
    const auto refused = [](auto change) {
        Builder b(11);
        add_model(b, {40, 6, 2, 20, 12, 24, 0, 0, 3, 2}, Kind::f32, 0);
        const auto units = std::make_unique<Stored>(b.spec);
        change(b.spec, *units);
        Pool pool(1);
        return refusal([&] { Program(pool, b.spec); });
    };
    check(refused([](ProgramSpec& spec, Stored& s) {
              spec.weights[0].extents = &s.store.add(18, 1, 160, false);
          }) == "weight 'w': the store has 1 x 18 rows of 160 bytes, expected 1 x 19 of 160");
    check(refused([](ProgramSpec& spec, Stored& s) {
              auto& weight = spec.weights[0];
              weight.format = 24;  // I8, which the machine does not multiply
              weight.extents = &s.store.add(weight.rows, 1, 40, false);
          }).starts_with("weight 'w': unknown format"));
    check(refused([](ProgramSpec& spec, Stored& s) {
              spec.weights[1].extents = &s.store.add(1, 1, 160, false);
          }).ends_with("weight 'w' is not resident as rows, where it is read"));
}

void bad_batches_are_refused() {
    Builder b(4);
    const Shape shape{32, 2, 1, 16, 16, 32, 0, 1, 2, 1};
    add_model(b, shape, Kind::f32, 0);
    Pool pool(2);
    Program program(pool, b.spec);
    KvCache cache({{1, 16, 16}, {1, 16, 16}}, 2, {KvFormat::f16, KvFormat::f16}),
        other({{1, 8, 16}, {1, 16, 16}}, 2, {KvFormat::f16, KvFormat::f16});
    const auto refused = [&](Tokens t, std::vector<int32_t> pages, KvCache* c) {
        const auto n = static_cast<int64_t>(t.tokens.size());
        const StateGroup group{c, nullptr, pages.data(), static_cast<int64_t>(pages.size())};
        const Batch batch{n,
                          static_cast<int64_t>(t.outputs.size()),
                          t.tokens.data(),
                          t.positions.data(),
                          t.sequences.data(),
                          t.outputs.data(),
                          1,
                          {&group, 1}};
        return refusal([&] { program.run(batch); });
    };
    const Tokens good{{1}, {0}, {0}, {0}};
    check(refused({}, {0}, &cache) == "tokens in the batch: found 0, expected 1 to 4");
    check(refused({{19}, {0}, {0}, {0}}, {0}, &cache) == "tokens[0]: found 19, expected 0 to 18");
    check(refused({{-1}, {0}, {0}, {0}}, {0}, &cache) == "tokens[0]: found -1, expected 0 to 18");
    check(refused({{1}, {-1}, {0}, {0}}, {0}, &cache) == "positions[0]: found -1, expected 0 to 2147483647");
    check(refused({{1}, {64}, {0}, {0}}, {0}, &cache) == "positions[0]: found 64, beyond 1 pages of 64");
    check(refused({{1}, {0}, {1}, {0}}, {0}, &cache) == "sequences[0]: found 1, expected 0 to 0");
    check(refused({{1}, {0}, {0}, {1}}, {0}, &cache) == "outputs[0]: found 1, expected 0 to 0");
    check(refused(good, {2}, &cache) == "pages[0, 0]: found 2, expected 0 to 1");
    check(refused({{1, 2}, {5, 5}, {0, 0}, {}}, {1}, &cache) ==
          "two tokens of the batch write slot 5 of page 1");
    check(refused(good, {0}, nullptr) == "operation 'rope_kv', state 0: the batch has no cache with it");
    KvCache few({{1, 16, 16}}, 2, {KvFormat::f16, KvFormat::f16});
    check(refused(good, {0}, &few) == "state 1: layer 1 of a group that has 1");
    check(refused(good, {0}, &other)
              .starts_with("operation 'rope_kv', state 0: the cache has 1 heads of 8 and 16"));
}

// Every operation of the further module, one behind the other; the last buffer holds what came of them.
void add_further_operations(Builder& b) {
    constexpr int64_t n = 37, heads = 3, head = 13, all = heads * head;
    const auto buffer = [&](int64_t width) { return b.buffer(width); };
    const auto slots = [&](int64_t width) { return b.buffer(width, Kind::f32, Rows::tokens, heads); };
    const int64_t x = buffer(n), normed = buffer(n), y = buffer(all), z = buffer(all);
    b.op("embed_positions", {}, {x}, {b.weight(100, n)});
    for (const char* op : {"logistic", "softplus"}) b.op(op, {x}, {x});
    b.op("tanh", {x}, {x}, {}, {}, {{"cap", 2.5}});
    b.op("scale", {x}, {x}, {}, {}, {{"factor", 1.5}});
    b.op("mul_vector", {x}, {x}, {b.weight(1, n)});
    b.op("mul_vector", {x}, {x}, {b.weight(1, 1)});
    b.op("add_vector", {x}, {x}, {b.weight(1, n)});
    b.op("layer_norm", {x}, {x, normed}, {b.weight(1, n), -1}, {}, {{"eps", 1e-5}});
    b.op("linear", {normed}, {y, z}, {b.weight(all, n), b.weight(all, n), b.weight(1, all), -1});
    b.op("head_norm", {y}, {y}, {b.weight(1, all)}, {{"n_head", heads}, {"head_dim", head}},
         {{"eps", 1e-5}, {"scale", 0.5}});
    const int64_t gates = buffer(all), part = buffer(heads * 5), joined = buffer(heads * 18),
                  twice = buffer(heads * 36);
    b.op("gelu", {y}, {gates}, {}, {{"tanh", 0}});
    b.op("geglu", {gates, z}, {y}, {}, {{"tanh", 1}});
    b.op("relu_squared", {y}, {gates});
    b.op("swiglu_clamped", {gates, z}, {y}, {}, {}, {{"alpha", 1.7}, {"limit", 7.0}, {"shift", 1.0}});
    b.op("columns", {y}, {part}, {}, {{"n_head", heads}, {"head_dim", head}, {"first", 8}, {"size", 5}});
    b.op("join", {part, y}, {joined}, {}, {{"n_head", heads}, {"dim_x", 5}, {"dim_y", head}});
    b.op("repeat_heads", {joined}, {twice}, {}, {{"n_head", heads}, {"head_dim", 18}, {"times", 2}});
    const int64_t rows = slots(36), products = slots(head), ids = b.buffer(heads, Kind::i32),
                  w = buffer(heads);
    b.op("heads_to_slots", {twice}, {rows, ids}, {}, {{"k", heads}, {"n", 36}});
    b.op("expert_linear", {rows, ids}, {products}, {b.weight(head, 36, 0, heads), b.weight(heads, head)});
    b.op("chosen", {ids}, {w}, {b.weight(1, heads)});
    b.op("mul_slots", {products, w}, {products});
    b.op("slots_to_heads", {ids, products}, {z}, {}, {{"k", heads}});
    const int64_t factor = buffer(1);
    b.op("temperature", {}, {factor}, {}, {{"length", 3}}, {{"slope", 0.1}});
    b.op("mul_rows", {z, factor}, {z});
    const int64_t one = buffer(1), means = b.buffer(all, Kind::f32, Rows::outputs);
    b.op("columns", {z}, {one}, {}, {{"n_head", 1}, {"head_dim", all}, {"first", all - 1}, {"size", 1}});
    b.op("mul_rows", {z, one}, {z});
    b.op("mean_rows", {z}, {means});
}

void further_operations() {
    const std::vector<int32_t> tokens(41), outputs{0, 40, 7};
    std::vector<int32_t> positions, sequences;
    for (int32_t t = 0; t < 41; ++t) {
        positions.push_back(t / 2);
        sequences.push_back(t % 2);
    }
    Batch batch{};
    batch.n_tokens = 41;
    batch.n_outputs = 3;
    batch.tokens = tokens.data();
    batch.positions = positions.data();
    batch.sequences = sequences.data();
    batch.outputs = outputs.data();
    batch.n_sequences = 2;
    std::vector<float> expected;
    for (const int threads : {1, 3}) {
        Builder b(41);
        add_further_operations(b);
        Pool pool(threads);
        Program program(pool, b.spec);
        check(program.run(batch));
        const Buffer& out = program.buffer(std::to_string(b.spec.buffers.size() - 1));
        std::vector<float> found;
        for (int64_t i = 0; i < 3; ++i) {
            const auto* row = reinterpret_cast<const float*>(out.data + i * out.row_bytes);
            found.insert(found.end(), row, row + out.width);
        }
        for (const float value : found) check(std::isfinite(value));
        if (expected.empty()) expected = found;
        check(same_bits(found, expected));
        const long before = allocations();
        check(program.run(batch));
        check(allocations() == before);
    }
}

}  // namespace

void test_program() {
    const Shape odd{40, 6, 2, 20, 12, 24, 0, 0, 3, 2}, window{64, 5, 1, 33, 32, 96, 9, 1, 4, 1};
    const Shape blocks{256, 4, 4, 64, 64, 256, 0, 1, 2, 2};
    same_bits_everywhere(odd, Kind::f32, 0, {KvFormat::f32, KvFormat::q4_0});
    same_bits_everywhere(window, Kind::f32, 1, {KvFormat::f16, KvFormat::f32});
    same_bits_everywhere(blocks, Kind::high, 12, {KvFormat::q8_0, KvFormat::bf16});
    same_bits_everywhere(blocks, Kind::fast, 8, {KvFormat::q4_0, KvFormat::q8_0});
    for (const auto format : {KvFormat::f32, KvFormat::f16, KvFormat::q8_0, KvFormat::q4_0})
        latent_rows_have_the_same_bits_everywhere(format);
    forked_pages_are_copies();
    cancelling_from_another_thread();
    weights_move_during_runs(odd, Kind::f32, 0);
    weights_move_during_runs(blocks, Kind::high, 12);
    weights_are_resident_or_refused();
    bad_extents_are_refused();
    bad_batches_are_refused();
    further_operations();
}

}  // namespace clarion::tests
