// The extension module. Bindings only convert; each room binds itself in a file of its own.
#include <nanobind/nanobind.h>

#include "bind/bind.h"

namespace nb = nanobind;

NB_MODULE(CLARION_MODULE, m) {
    // Whoever still holds a model when the interpreter ends holds its program: that is no fault to report.
    nb::set_leak_warnings(false);
    m.attr("ISA") = CLARION_ISA_NAME;
    clarion::bind_modules(m);
    clarion::bind_formats(m);
    clarion::bind_machine(m);
}
