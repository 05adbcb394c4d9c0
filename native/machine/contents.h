// What a module holds (machine/modules.h).
#pragma once

#include <span>

#include "formats/entry.h"
#include "machine/op.h"

namespace clarion {

struct Operation {
    const char* name;
    OpFactory make;
};

// It stays where it is for as long as the process runs.
struct Contents {
    std::span<const Format> formats;
    std::span<const Operation> operations;
};

}  // namespace clarion
