// How the main module gets the contents of the further ones (machine/modules.h): Python imports them.
#include "machine/modules.h"

#include <nanobind/nanobind.h>

#include "bind/bind.h"
#include "kernels/contents.h"

namespace nb = nanobind;

namespace clarion {

namespace {

nb::handle importer;  // kept for as long as the process runs

void load(const char* module) {
    const nb::gil_scoped_acquire held;
    const auto contents = nb::cast<nb::capsule>(importer(module));
    add_contents(*static_cast<const Contents*>(contents.data(contents_name)));
}

}  // namespace

void bind_modules(nb::module_& m) {
    add_contents(common_formats);
    add_contents(common_operations);
    m.def(
        "load_modules_with",
        [](nb::callable import_module) {
            importer = import_module.release();
            load_modules_with(load);
        },
        nb::arg("import_module"),
        "Calls import_module(name) for the CONTENTS of a further module when something that it holds is "
        "named.");
}

}  // namespace clarion
