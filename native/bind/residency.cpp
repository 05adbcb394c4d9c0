#include "bind/bind.h"

namespace nb = nanobind;

namespace clarion {

void bind_residency(nb::module_& m) { (void)m; }

}  // namespace clarion
