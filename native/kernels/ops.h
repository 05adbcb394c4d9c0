// One factory for each operation of the table in machine/operations.cpp. What they take and give stands in
// docs/architecture.md; each throws std::invalid_argument for a specification that it cannot run.
#pragma once

#include "machine/op.h"

namespace clarion {

std::unique_ptr<Op> make_embed(const OpSpec& spec);
std::unique_ptr<Op> make_encode(const OpSpec& spec);
std::unique_ptr<Op> make_linear(const OpSpec& spec);
std::unique_ptr<Op> make_expert_linear(const OpSpec& spec);
std::unique_ptr<Op> make_rope_table(const OpSpec& spec);
std::unique_ptr<Op> make_norm(const OpSpec& spec);
std::unique_ptr<Op> make_rope(const OpSpec& spec);
std::unique_ptr<Op> make_kv_write(const OpSpec& spec);
std::unique_ptr<Op> make_rope_kv(const OpSpec& spec);
std::unique_ptr<Op> make_attention(const OpSpec& spec);
std::unique_ptr<Op> make_silu(const OpSpec& spec);
std::unique_ptr<Op> make_mul(const OpSpec& spec);
std::unique_ptr<Op> make_add(const OpSpec& spec);
std::unique_ptr<Op> make_gate(const OpSpec& spec);
std::unique_ptr<Op> make_select(const OpSpec& spec);
std::unique_ptr<Op> make_route(const OpSpec& spec);
std::unique_ptr<Op> make_expert_sum(const OpSpec& spec);
std::unique_ptr<Op> make_square_sums(const OpSpec& spec);

}  // namespace clarion
