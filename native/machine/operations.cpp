// The operation table: one line for each name that a plan may use.
#include "kernels/ops.h"
#include "machine/op.h"

namespace clarion {

namespace {

struct Entry {
    const char* name;
    OpFactory make;
};

constexpr Entry table[] = {
    {"embed", make_embed},
    {"encode", make_encode},
    {"linear", make_linear},
    {"expert_linear", make_expert_linear},
    {"rope_table", make_rope_table},
    {"norm", make_norm},
    {"rope", make_rope},
    {"kv_write", make_kv_write},
    {"rope_kv", make_rope_kv},
    {"attention", make_attention},
    {"silu", make_silu},
    {"mul", make_mul},
    {"add", make_add},
    {"gate", make_gate},
    {"select", make_select},
    {"route", make_route},
    {"expert_sum", make_expert_sum},
    {"square_sums", make_square_sums},
};

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
