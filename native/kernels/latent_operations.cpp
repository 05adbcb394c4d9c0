// The operations of programs that keep latent rows.
#include "kernels/contents.h"

#include "machine/contents.h"
#include "operations.h"

namespace clarion {

namespace {

#define CLARION_ENTRY(name) {#name, make_##name},
constexpr Operation operations[] = {CLARION_OPERATIONS_latent(CLARION_ENTRY)};
#undef CLARION_ENTRY

}  // namespace

const Contents latent_operations{{}, operations};

}  // namespace clarion
