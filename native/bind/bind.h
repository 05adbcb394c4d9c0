#pragma once

#include <nanobind/nanobind.h>

namespace clarion {

void bind_formats(nanobind::module_& m);  // dequantize, linear, measure_*
void bind_machine(nanobind::module_& m);  // Machine, Program, KvCache
void bind_modules(nanobind::module_& m);  // load_modules_with

// The name of the capsules in which further modules give their contents: of one instruction set, and of no other.
inline constexpr char contents_name[] = "clarion contents for " CLARION_ISA_NAME;

}  // namespace clarion
