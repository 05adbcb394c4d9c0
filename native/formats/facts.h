// What is known of each weight format without any of its functions, and so without an instruction set.
#pragma once

#include <cstdint>
#include <span>

namespace clarion {

struct FormatFacts {
    int id;  // GGUF type id
    const char* name;
    int64_t block, bytes;  // weights and bytes of a block
    const char* module;    // that holds its functions: "" is the main one (machine/modules.h)
};

// All formats of formats/table.h, in its order.
std::span<const FormatFacts> format_facts();

}  // namespace clarion
