// The operations that only some programs have.
#include "kernels/contents.h"

#include "machine/contents.h"
#include "operations.h"

namespace clarion {

namespace {

#define CLARION_ENTRY(name) {#name, make_##name},
constexpr Operation operations[] = {CLARION_OPERATIONS_operations(CLARION_ENTRY)};
#undef CLARION_ENTRY

}  // namespace

const Contents other_operations{{}, operations};

}  // namespace clarion
