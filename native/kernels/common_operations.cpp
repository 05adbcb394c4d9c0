// The operations of ordinary programs.
#include "kernels/contents.h"

#include "machine/contents.h"
#include "operations.h"

namespace clarion {

namespace {

#define CLARION_ENTRY(name) {#name, make_##name},
constexpr Operation operations[] = {CLARION_OPERATIONS(CLARION_ENTRY)};
#undef CLARION_ENTRY

}  // namespace

const Contents common_operations{{}, operations};

}  // namespace clarion
