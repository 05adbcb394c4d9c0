// Makes an operation from its specification.
#include "operations.h"
#include "machine/contents.h"
#include "machine/modules.h"

namespace clarion {

std::unique_ptr<Op> make_op(const OpSpec& spec) {
    const Operation* operation = find_operation(spec.op);
    if (operation == nullptr) {
        std::string known;
        for (const OperationFacts& facts : operation_facts)
            known += (known.empty() ? "" : ", ") + std::string(facts.name);
        spec.fail({"unknown; expected one of ", known});
    }
    std::unique_ptr<Op> op = operation->make(spec);
    spec.refuse_unread();
    return op;
}

std::vector<std::string> op_names() {
    std::vector<std::string> names;
    for (const OperationFacts& facts : operation_facts) names.emplace_back(facts.name);
    return names;
}

}  // namespace clarion
