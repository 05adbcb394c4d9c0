#pragma once

#include <nanobind/nanobind.h>

namespace clarion {

void bind_formats(nanobind::module_& m);  // formats, dequantize, linear, measure_*
void bind_machine(nanobind::module_& m);  // Machine, Program, KvCache
void bind_store(nanobind::module_& m);    // Store, Unit, copy

}  // namespace clarion
