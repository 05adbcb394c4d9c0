"""Room in huge pages for copies of weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clarion._native import files
from clarion.residency.mapped import Mapped

Bytes = npt.NDArray[np.uint8]

# So much is copied before anybody notices, in some ten milliseconds.
AT_ONCE_BYTES = 32 << 20
# Of the memory that is available: the rest of the machine has work to do too.
LARGEST_PART = 0.5
_LINE = 64  # copies begin at cache lines


class Space:
    """Memory in pages of 2 MB, where the system has them, with a place for each of some weights.

    One token reads each weight once, and most of what small pages cost is looking them up: see
    native/residency/huge_pages.h for the measurement. Pages take memory when they are first written.
    """

    def __init__(self, mapped: Mapped, names: Sequence[str]) -> None:
        """Raises MemoryError."""
        self.originals: dict[str, Bytes] = {name: np.asarray(mapped.data(name), np.uint8) for name in names}
        ends = np.cumsum(
            [0, *(-(-data.nbytes // _LINE) * _LINE for data in self.originals.values())]
        ).tolist()
        memory = files.HugePages(ends[-1]).bytes
        self.copies: dict[str, Bytes] = {
            name: memory[start : start + data.nbytes]
            for start, (name, data) in zip(ends, self.originals.items(), strict=False)
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each weight."""
        return {name: data.nbytes for name, data in self.originals.items()}


def best_place(n_bytes: int, available: int) -> str:
    """Where so many bytes of weights are best, with so many bytes of memory: copied, moving or mapped."""
    if n_bytes <= AT_ONCE_BYTES:
        return "copied"
    return "moving" if n_bytes <= LARGEST_PART * available else "mapped"
