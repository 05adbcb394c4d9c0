// One factory for each operation of the table in machine/operations.cpp.
#pragma once

#include "machine/op.h"

namespace clarion {

std::unique_ptr<Op> make_embed(const OpSpec& spec);
std::unique_ptr<Op> make_encode(const OpSpec& spec);
std::unique_ptr<Op> make_linear(const OpSpec& spec);
std::unique_ptr<Op> make_expert_linear(const OpSpec& spec);

}  // namespace clarion
