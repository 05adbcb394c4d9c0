"""Writes a header with the codebooks of the weight formats, as the `gguf` package has them.

    python codebooks.py <file>

Grids stay packed as the package packs them, 2 bits a value or 4: unpacked they would be four times as large
in each module. codebooks.h unpacks them when a module is loaded.
"""

import sys
from pathlib import Path

from gguf import quants


def array(type_: str, name: str, values: bytes | tuple[int, ...]) -> str:
    numbers = ", ".join(map(str, values))
    return f"inline constexpr {type_} {name}[{len(values)}] = {{{numbers}}};\n"


def grid(name: str, format: type) -> str:
    """A packed grid, and what its values stand for."""
    packed = array("uint8_t", name, bytes.fromhex(format.grid_hex.decode()))
    return packed + array("int8_t", f"{name}_levels", format.grid_map)


def header() -> str:
    return (
        "// Written by codebooks.py from the gguf package.\n#pragma once\n\n#include <cstdint>\n\n"
        "namespace clarion::codebook_data {\n"
        + grid("iq1", quants.IQ1_S)
        + grid("iq2_xxs", quants.IQ2_XXS)
        + grid("iq2_xs", quants.IQ2_XS)
        + grid("iq2_s", quants.IQ2_S)
        + grid("iq3_xxs", quants.IQ3_XXS)
        + grid("iq3_s", quants.IQ3_S)
        + array("int8_t", "iq4", quants.IQ4_NL.kvalues)
        + array("int8_t", "e2m1", quants.MXFP4.kvalues)
        + "}  // namespace clarion::codebook_data\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(header())
