"""Weights in float8 times scales: one for the matrix, one for each row, or one for each block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clarion.convert.config import Config, whole
from clarion.convert.matrix import Floats, Matrix
from clarion.convert.stored import Stored
from clarion.errors import ModelError, UnsupportedError

_SCALES = ("_scale_inv", "_scale")


@dataclass(frozen=True, slots=True)
class Float8:
    """A checkpoint whose weights may be float8.

    Attributes:
        block: rows and columns that share a scale, where scales are neither one nor one for each row.
    """

    block: tuple[int, int] = (0, 0)


def read(config: Config) -> Float8:
    """The figures of `quantization_config`."""
    block = config.get("weight_block_size")
    return Float8((0, 0) if block is None else block_of(config, "weight_block_size", block))


def block_of(config: Config, key: str, found: object) -> tuple[int, int]:
    """Rows and columns of a block, as a list of two whole numbers."""
    sizes = [whole(size) or 0 for size in found] if isinstance(found, list) else []
    if len(sizes) != 2 or min(sizes) < 1:
        raise config.error(key, found, "two whole numbers")
    return (sizes[0], sizes[1])


def find(method: Float8, tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The tensor of this name, with its scales where it is float8; None: there is none.

    Raises:
        ModelError: float8 without scales, or scales of another shape.
        UnsupportedError: scales of something that is not float8, or two of them.
    """
    stored = tensors.get(name)
    if stored is None:
        return None
    where = f"{stored.path.name}: tensor {name!r} holds {stored.dtype}"
    names = [name + suffix for suffix in _SCALES if name + suffix in tensors]
    if len(names) > 1 or (names and not stored.dtype.startswith("F8")):
        raise UnsupportedError(f"{where} and has {names}")
    if not names:
        if stored.dtype.startswith("F8"):
            raise ModelError(f"{where}, and {name}_scale is missing")
        return stored
    return scaled(stored, tensors[names[0]], method.block)


@dataclass(frozen=True)
class Scaled(Matrix):
    """Each scale belongs to `block` rows and columns."""

    weight: Stored
    scale: Stored
    block: tuple[int, int]

    def rows(self, begin: int, end: int) -> Floats:
        rows, cols = self.block
        first, last = begin // rows, -(-end // rows)
        # A scale for each row may lie in a vector, whose one row holds them all.
        scales = self.scale.values().reshape(-(-self.n_rows // rows), -1)[first:last]
        scales = scales[np.arange(begin, end) // rows - first].repeat(cols, axis=1)[:, : self.n_cols]
        with np.errstate(all="ignore"):  # what is no number afterwards is refused
            return self.weight.rows(begin, end) * scales

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.weight.name, self.scale.name)

    @property
    def method(self) -> str:
        return "float8"


def scaled(weight: Stored, scale: Stored, block: tuple[int, int]) -> Scaled:
    """The weight with its scales.

    Raises:
        ModelError: the scales have another shape.
    """
    rows, cols = weight.n_rows, max(weight.n_cols, 1)
    block_rows, block_cols = block
    if scale.n_elements == 1:
        block = (max(rows, 1), cols)
    elif scale.shape in ((rows,), (rows, 1)):
        block = (1, cols)
    elif min(block) < 1 or scale.shape != (-(-rows // block_rows), -(-cols // block_cols)):
        raise ModelError(
            f"{scale.path}: tensor {scale.name!r} has shape {list(scale.shape)}, expected one "
            f"scale, one for each of {rows} rows, or one for each block of {block_rows} × {block_cols}"
        )
    return Scaled(weight.name, weight.dtype, weight.shape, weight.path, weight, scale, block)
