"""Weight formats by GGUF type id: what native modules compute with, and the names of all the others."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clarion._native import files
from clarion.errors import UnsupportedError

# Every type id that GGUF has ever assigned, from 0 on (ggml.h, enum ggml_type).
_NAMES = """
F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16
Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4 NVFP4 Q1_0 Q2_0
"""
NAMES = tuple(_NAMES.split())
REMOVED = frozenset({4, 5, 31, 32, 33, 36, 37, 38})


@dataclass(frozen=True, slots=True)
class Format:
    """How weights lie in a file: blocks of `block_size` weights in `block_bytes` bytes."""

    name: str
    type_id: int
    block_size: int
    block_bytes: int

    def n_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this shape; its rows (the last dimension) are whole blocks."""
        return math.prod(shape) // self.block_size * self.block_bytes


# Formats without a kernel: tables of numbers that a model may carry.
PLAIN = (
    Format("I8", 24, 1, 1),
    Format("I16", 25, 1, 2),
    Format("I32", 26, 1, 4),
    Format("I64", 27, 1, 8),
)


@functools.cache
def formats() -> Mapping[int, Format]:
    """The formats that a tensor may have, by type id."""
    computed = [Format(name, type_id, size, n_bytes) for type_id, name, size, n_bytes in files.formats()]
    return MappingProxyType({format.type_id: format for format in (*computed, *PLAIN)})


def format_of(type_id: int) -> Format:
    """The format of this type id.

    Raises:
        UnsupportedError: there is none; the message gives the id's name and what is supported.
    """
    found = formats().get(type_id)
    if found is None:
        name = NAMES[type_id] if 0 <= type_id < len(NAMES) else "unknown"
        removed = ", removed from GGUF" if type_id in REMOVED else ""
        raise UnsupportedError(
            f"weight format is {name} (type id {type_id}{removed}), supported: {_supported()}"
        )
    return found


def format_named(name: str) -> Format:
    """The format of this name; UnsupportedError where there is none."""
    for format in formats().values():
        if format.name == name:
            return format
    raise UnsupportedError(f"weight format is {name!r}, supported: {_supported()}")


def _supported() -> str:
    return ", ".join(format.name for format in formats().values())
