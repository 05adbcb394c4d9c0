"""Weights that are whole numbers times scales: (code - zero) * scale, with both for each group.

Those are the values of GPTQ, AWQ and of the integers of compressed-tensors and bitsandbytes. A block of
GGUF's Q4_0, Q5_0 or Q8_0 is 32 whole numbers times one scale in float16. So it holds such values exactly
if its columns are of one group, the scale is a float16, and code - zero lies within the format's range.
Where zeros are not the middle of the codes, code - zero needs one bit more than the code: Q5_0 for 4
bits. Q4_1 has a minimum in the place of a middle and would have to round it, for -zero * scale is no
float16 in general.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.convert.matrix import Bytes, Floats, Matrix, halves, raw

Codes = npt.NDArray[np.int16]
Scales = npt.NDArray[np.floating[Any]]
BLOCK = 32
# Formats of 32 whole numbers times a scale, by size: the least number and the greatest.
_RANGES = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-128, 127)}
_SCALES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Integers(Matrix):
    """Rows of codes from 0 to 2^bits - 1, with zeros and scales.

    Attributes:
        bits: of a code, 1 to 8.
        n_groups: of a row.
        group_size: columns of a group that follow each other, where no `group_of` says otherwise.
    """

    bits: int
    n_groups: int
    group_size: int

    @abstractmethod
    def codes(self, begin: int, end: int) -> Bytes:
        """Codes of rows `begin` to `end` [end - begin, n_cols]."""

    @abstractmethod
    def scales(self, begin: int, end: int) -> Scales:
        """Scales of rows `begin` to `end` [end - begin, n_groups]; float32 rounds once what it multiplies."""

    @abstractmethod
    def zeros(self, begin: int, end: int) -> Codes:
        """The codes that stand for zero [end - begin, n_groups], or one for all of them [1, 1]."""

    def group_of(self) -> npt.NDArray[np.intp]:
        """The group of each column [n_cols]."""
        return np.arange(self.n_cols) // self.group_size

    @property
    def figures(self) -> str:
        """Bits and groups in a person's words."""
        groups = f"groups of {self.group_size}" if self.n_groups > 1 else "one scale for each row"
        return f"{self.bits} bits, {groups}"

    def rows(self, begin: int, end: int) -> Floats:
        group_of = self.group_of()
        scales = self.scales(begin, end)
        with np.errstate(all="ignore"):  # what float32 does not hold becomes infinite, and is refused
            product = self._whole(begin, end, group_of) * scales.take(group_of, axis=1)
            return product.astype(np.float32, copy=False)

    def formats(self) -> tuple[str, ...]:
        if self.n_cols % BLOCK or not self.n_elements:
            return ()
        group_of = self.group_of().reshape(-1, BLOCK)
        if (group_of != group_of[:, :1]).any():
            return ()
        zeros = [int(z) for rows in self._spans() for z in self._zero_range(*rows)]
        if not all(self._is_f16(*rows) for rows in self._spans()):
            return ()
        least, greatest = -max(zeros), (1 << self.bits) - 1 - min(zeros)
        return tuple(name for name, (low, high) in _RANGES.items() if low <= least and greatest <= high)

    def blocks(self, begin: int, end: int, format: str) -> Bytes:
        group_of = self.group_of()
        whole = self._whole(begin, end, group_of)  # [R, C]
        whole = whole.reshape(end - begin, self.n_cols // BLOCK, BLOCK)
        scales = raw(self.scales(begin, end)[:, group_of[::BLOCK], None].astype("<f2"))  # [R, blocks, 2]
        if format == "Q8_0":
            columns = [scales, raw(whole.astype(np.int8))]
        else:
            codes = (whole - _RANGES[format][0]).astype(np.uint8)
            fifth = [np.packbits(codes >> 4, axis=-1, bitorder="little")] if format == "Q5_0" else []
            columns = [scales, *fifth, halves(codes & np.uint8(15))]
        found = np.concatenate(columns, axis=-1)  # [R, blocks, bytes]
        return found.reshape(end - begin, found.shape[1] * found.shape[2])

    def _whole(self, begin: int, end: int, group_of: npt.NDArray[np.intp]) -> Codes:
        """Code - zero [end - begin, n_cols]."""
        zeros = self.zeros(begin, end)
        of_columns = zeros if zeros.shape[1] == 1 else zeros.take(group_of, axis=1)
        return self.codes(begin, end) - of_columns

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Rows begin to end, few enough that all their scales are in memory at once."""
        step = max(_SCALES_AT_ONCE // max(self.n_groups, 1), 1)
        return ((begin, min(begin + step, self.n_rows)) for begin in range(0, self.n_rows, step))

    def _zero_range(self, begin: int, end: int) -> tuple[Any, Any]:
        zeros = self.zeros(begin, end)
        return zeros.min(), zeros.max()

    def _is_f16(self, begin: int, end: int) -> bool:
        scales = self.scales(begin, end)
        with np.errstate(over="ignore"):
            return bool((np.isfinite(scales) & (scales.astype(np.float16) == scales)).all())
