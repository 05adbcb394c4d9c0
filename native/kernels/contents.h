// What the kernels give to the modules: machine/modules.h says which module holds what.
#pragma once

#include "machine/modules.h"

namespace clarion {

// Of the main module, `<isa>`.
extern const Contents common_formats, common_operations;
// Of the module `<isa>_formats`.
extern const Contents other_formats;
// Of the module `<isa>_latent`.
extern const Contents latent_operations;
// Of the module `<isa>_operations`.
extern const Contents other_operations;
// Of the module `<isa>_recurrent`.
extern const Contents recurrent_operations;

}  // namespace clarion
