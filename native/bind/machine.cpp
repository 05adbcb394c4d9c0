#include "bind/bind.h"

namespace nb = nanobind;

namespace clarion {

void bind_machine(nb::module_& m) { (void)m; }

}  // namespace clarion
