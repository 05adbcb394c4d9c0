// Finds the factory of an operation by its name.
#include "operations.h"

namespace clarion {

namespace {

struct Entry {
    const char* name;
    OpFactory make;
};

#define CLARION_ENTRY(name) {#name, make_##name},
constexpr Entry table[] = {CLARION_OPERATIONS(CLARION_ENTRY)};
#undef CLARION_ENTRY

}  // namespace

std::unique_ptr<Op> make_op(const OpSpec& spec) {
    for (const Entry& entry : table) {
        if (spec.op != entry.name) continue;
        std::unique_ptr<Op> op = entry.make(spec);
        spec.refuse_unread();
        return op;
    }
    std::string known;
    for (const Entry& entry : table) known += (known.empty() ? "" : ", ") + std::string(entry.name);
    spec.fail({"unknown; expected one of ", known});
}

std::vector<std::string> op_names() {
    std::vector<std::string> names;
    for (const Entry& entry : table) names.emplace_back(entry.name);
    return names;
}

}  // namespace clarion
