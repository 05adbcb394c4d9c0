// The modules of one instruction set.
//
// The main module, `<isa>`, holds the machine, the operations of ordinary programs and the common weight formats. What fewer
// models need lies in further modules, `<isa>_<name>`, each of which adds its contents when it is loaded. Two tables say which
// module holds what: formats/table.h for formats, and the operation table for operations. So a module is loaded when
// something names a format or an operation that it holds.
//
// All of this may be called from any thread.
#pragma once

#include <string>

namespace clarion {

struct Contents;   // machine/contents.h
struct Format;     // formats/entry.h
struct Operation;  // machine/contents.h

// Makes contents known; those that are known already stay so.
void add_contents(const Contents& contents);

// `load` adds the contents of the further module of this name, or throws.
void load_modules_with(void (*load)(const char* module));

// These load the module that holds it, if nobody has. Null when no table has such a format or operation.
const Format* find_format(int id);
const Operation* find_operation(const std::string& name);

}  // namespace clarion
