"""Writes a header with what the native code must know of the operation table.

    python operations.py <file>

For an operation `rope` the header has a struct `RopeParameters` and declares a function `make_rope`. The
struct is made of a specification: it reads every parameter by its name and refuses an absent one. The
function makes the operation of a specification; the kernel defines it. `operation_facts` says of each
operation which module holds it. `CLARION_OPERATIONS(X)` is `X(name)` for each that the main module holds, and
`CLARION_OPERATIONS_<module>(X)` for each that a further module holds.
"""

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from clarion.plan.operations import OPERATIONS

# Annotation in the table → type in the struct, and the way to read it.
TYPES = {
    "int": ("int64_t", "integer"),
    "bool": ("bool", "flag"),
    "float": ("double", "number"),
    "Floats": ("const std::vector<double>&", "array"),
}


def struct(name: str, parameters: dict[str, str]) -> str:
    title = "".join(word.capitalize() for word in name.split("_")) + "Parameters"
    members = "".join(f"    {TYPES[kind][0]} {key};\n" for key, kind in parameters.items())
    reads = ", ".join(f'{key}(spec.{TYPES[kind][1]}("{key}"))' for key, kind in parameters.items())
    return f"struct {title} {{\n{members}    explicit {title}(const OpSpec& spec) : {reads} {{}}\n}};\n"


def header() -> str:
    structs = [
        struct(name, parameters)
        for name, entry in OPERATIONS.items()
        if (
            parameters := {
                parameter.name: parameter.annotation
                for parameter in inspect.signature(entry.definition).parameters.values()
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation in TYPES
            }
        )
    ]
    factories = [f"std::unique_ptr<Op> make_{name}(const OpSpec& spec);\n" for name in OPERATIONS]
    facts = "".join(f'    {{"{name}", "{entry.module}"}},\n' for name, entry in OPERATIONS.items())
    holds: dict[str, list[str]] = {}
    for name, entry in OPERATIONS.items():
        holds.setdefault(entry.module, []).append(name)
    lists = "".join(
        f"\n#define CLARION_OPERATIONS{module and '_'}{module}(X) \\\n    "
        + " \\\n    ".join(f"X({name})" for name in names)
        + "\n"
        for module, names in holds.items()
    )
    return (
        "// Written by machine/operations.py from the operation table.\n#pragma once\n\n"
        '#include <cstdint>\n#include <memory>\n#include <vector>\n\n#include "machine/op.h"\n\n'
        "namespace clarion {\n\n"
        + "\n".join(structs)
        + "\n// Each throws std::invalid_argument for a specification that it cannot run.\n"
        + "".join(factories)
        + '\n// An operation, and the module that holds it: "" is the main one.\n'
        + "struct OperationFacts {\n    const char* name;\n    const char* module;\n};\n"
        + f"inline constexpr OperationFacts operation_facts[] = {{\n{facts}}};\n"
        + f"\n}}  // namespace clarion\n{lists}"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(header(), encoding="utf-8")
