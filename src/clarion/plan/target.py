"""Where a program is to run, and what compiling must know of that.

The caller describes the target: a plan and its passes know no processor. A new kind of place is a class here
and in the union `Place`: the type checker then names every place in the code that must know it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from clarion.plan.ir import Kind


@dataclass(frozen=True, slots=True)
class Host:
    """The processor and the memory of this machine."""


Place = Host


def describe(place: Place) -> str:
    """The place in words, for a printed program."""
    match place:
        case Host():
            return "the host"
        case _:
            assert_never(place)


@dataclass(frozen=True, slots=True)
class Target:
    """One place, as the passes see it. All operations of a program run in one place.

    Attributes:
        row_bytes: the bytes of a buffer's row there, by its kind and width.
        bf16: whether BF16 is multiplied with BF16 there, which a `fast` program then uses.
    """

    row_bytes: Callable[[Kind, int], int]
    bf16: bool = False
    place: Place = field(default_factory=Host)
