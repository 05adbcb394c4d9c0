#include "machine/modules.h"

#include <array>
#include <atomic>

#include "formats/facts.h"
#include "machine/contents.h"
#include "machine/message.h"
#include "operations.h"

namespace clarion {

namespace {

// Filled from the front, and never emptied: whoever reads it needs no lock.
std::array<std::atomic<const Contents*>, 16> known{};
std::atomic<void (*)(const char*)> loader{nullptr};

// The first entry for which is_wanted(entry), of all contents that are known.
template <typename Entry, typename Wanted>
const Entry* find_known(std::span<const Entry> Contents::* entries, const Wanted& is_wanted) {
    for (const auto& place : known) {
        const Contents* contents = place.load(std::memory_order_acquire);
        if (contents == nullptr) break;
        for (const Entry& entry : contents->*entries)
            if (is_wanted(entry)) return &entry;
    }
    return nullptr;
}

// The same, after the module that holds it is loaded: the one that is named by the first of `facts` for which
// is_wanted(facts).
template <typename Entry, typename Facts, typename Wanted>
const Entry* find(std::span<const Entry> Contents::* entries, std::span<const Facts> facts,
                  const Wanted& is_wanted) {
    if (const Entry* entry = find_known(entries, is_wanted)) return entry;
    const auto load = loader.load(std::memory_order_acquire);
    for (const Facts& f : facts) {
        if (!is_wanted(f) || load == nullptr) continue;
        load(f.module);
        return find_known(entries, is_wanted);
    }
    return nullptr;
}

}  // namespace

void add_contents(const Contents& contents) {
    for (auto& place : known) {
        const Contents* held = nullptr;
        if (place.compare_exchange_strong(held, &contents, std::memory_order_acq_rel) || held == &contents)
            return;
    }
    refuse({"modules: there is room for the contents of ", known.size()});
}

void load_modules_with(void (*load)(const char*)) { loader.store(load, std::memory_order_release); }

const Format* find_format(int id) {
    return find(&Contents::formats, format_facts(), [&](const auto& f) { return f.id == id; });
}

const Operation* find_operation(const std::string& name) {
    return find(&Contents::operations, std::span<const OperationFacts>(operation_facts),
                [&](const auto& o) { return o.name == name; });
}

}  // namespace clarion
