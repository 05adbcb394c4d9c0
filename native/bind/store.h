// What the module `files` binds besides files.
#pragma once

#include <nanobind/nanobind.h>

namespace clarion {

void bind_store(nanobind::module_& m);   // Store, Unit, copy
void bind_states(nanobind::module_& m);  // SlotStates

}  // namespace clarion
