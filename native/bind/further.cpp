// A further module: it has nothing to call, only contents for the main module of its instruction set.
#include <nanobind/nanobind.h>

#include "bind/bind.h"
#include "kernels/contents.h"

namespace nb = nanobind;

NB_MODULE(CLARION_MODULE, m) {
    m.attr("CONTENTS") = nb::capsule(&clarion::CLARION_CONTENTS, clarion::contents_name);
}
