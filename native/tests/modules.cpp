// Contents of modules, which are loaded when something that they hold is named.
#include "machine/modules.h"

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "formats/facts.h"
#include "kernels/contents.h"
#include "machine/contents.h"
#include "machine/program.h"
#include "tests/check.h"

namespace clarion::tests {

namespace {

std::atomic<int> loads{0};

void load(const char* module) {
    check(std::string(module) == "formats");
    loads.fetch_add(1);
    add_contents(other_formats);
}

// The formats of a further module, named by several threads at once, by any of them first.
void formats_are_loaded_when_they_are_named() {
    load_modules_with(load);
    for (const FormatFacts& facts : format_facts())
        if (*facts.module == '\0') check(find_format(facts.id)->id == facts.id);
    check(find_format(999) == nullptr);
    check(loads == 0);

    std::array<std::vector<const Format*>, 4> found;
    std::vector<std::thread> threads;
    for (auto& formats : found)
        threads.emplace_back([&formats] {
            for (const FormatFacts& facts : format_facts()) formats.push_back(find_format(facts.id));
        });
    for (std::thread& thread : threads) thread.join();
    check(loads >= 1 && loads <= 4);
    for (const auto& formats : found) check(formats == found[0]);
    for (size_t i = 0; i < found[0].size(); ++i) {
        const FormatFacts& facts = format_facts()[i];
        check(found[0][i] != nullptr && found[0][i]->id == facts.id &&
              found[0][i]->name == std::string(facts.name));
        check(found[0][i]->block == facts.block && found[0][i]->bytes == facts.bytes);
    }
    const int before = loads;
    add_contents(other_formats);
    check(find_format(999) == nullptr && loads == before);
}

// An operation that only some module has.
class Count final : public Op {
  public:
    int64_t begin(const Batch& batch) override { return batch.n_tokens; }
    void run(const Batch&, int64_t, const Scratch&) override { items.fetch_add(1); }
    static inline std::atomic<int> items{0};
};
std::unique_ptr<Op> make_count(const OpSpec&) { return std::make_unique<Count>(); }
constexpr Operation counting[] = {{"count", make_count}};
const Contents counting_module{{}, counting};

void operations_of_a_module_run() {
    Pool pool(2);
    const auto program = [&] {
        ProgramSpec spec{};
        spec.max_tokens = 3;
        spec.ops.push_back({"count", {}, {}, {}, {}, {}, {}});
        return std::make_unique<Program>(pool, std::move(spec));
    };
    check(refusal(program).starts_with("operation 'count': unknown"));
    add_contents(counting_module);
    const int32_t tokens[3] = {}, positions[3] = {}, sequences[3] = {};
    check(program()->run({3, 0, tokens, positions, sequences, nullptr, 1, {}}));
    check(Count::items == 3);
}

}  // namespace

void test_modules() {
    formats_are_loaded_when_they_are_named();
    operations_of_a_module_run();
}

}  // namespace clarion::tests
