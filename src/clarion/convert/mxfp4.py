"""MXFP4: 32 floats of 4 bits with an exponent of 8 bits, as gpt-oss has its experts.

Of a weight [..., rows, n] named NAME there are

    NAME_blocks u8 [..., rows, n / 32, 16]  the e2m1 floats of a group, low halves of bytes first
    NAME_scales u8 [..., rows, n / 32]      exponents: value = 2^(scale - 127) * float

GGUF's format of this name has the same floats and exponents, in another order: columns 0 to 15 in the low
halves, 16 to 31 in the high ones. So a weight is kept as it is. (OCP Microscaling Formats, version 1.0,
where 255 is no number.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clarion.convert.config import Config
from clarion.convert.matrix import Bytes, Floats, Matrix, halves
from clarion.convert.stored import Stored
from clarion.errors import ModelError

GROUP = 32
# Sign, two bits of exponent, one of fraction.
_MAGNITUDES = (0.0, 0.5, 1, 1.5, 2, 3, 4, 6)
VALUES: Floats = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
_BIAS = 127
_MOST = 252  # the greatest exponent with which float32 holds 6
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """A checkpoint of which some weights are MXFP4. There are no figures."""


def read(config: Config) -> Mxfp4:
    """The figures of `quantization_config`: none, and none that would change them."""
    config.only("dequantize", False)
    return Mxfp4()


def find(tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight of this name, with `.weight` or without; None: it is not quantised.

    Raises:
        ModelError: a part is missing, or of another type or shape.
    """
    blocks, scales = tensors.get(name + "_blocks"), tensors.get(name + "_scales")
    if blocks is None:
        return None
    if scales is None:
        raise ModelError(
            f"{blocks.path}: tensor {name + '_scales'!r} is missing, which {blocks.name!r} needs"
        )
    return matrix(blocks, scales)


def matrix(packed: Stored, scales: Stored) -> Matrix:
    """The weight of floats, packed as [..., rows, n / 32, 16] or [..., rows, n / 2], and exponents.

    Raises:
        ModelError: other types or shapes.
    """
    packed.expect(("U8",))
    scales.expect(("U8",))
    shape = scales.shape
    if len(shape) < 2 or packed.shape not in ((*shape, 16), (*shape[:-1], shape[-1] * 16)):
        raise ModelError(
            f"{packed.path}: tensor {packed.name!r} has shape {list(packed.shape)}, expected that of "
            f"{scales.name!r}, {list(shape)}, and 16 bytes for each exponent"
        )
    packed = replace(packed, shape=(*shape[:-1], shape[-1] * 16))
    return _Weight(packed.name, "BF16", (*shape[:-1], shape[-1] * GROUP), packed.path, packed, scales)


@dataclass(frozen=True)
class _Weight(Matrix):
    packed: Stored
    scales: Stored

    def rows(self, begin: int, end: int) -> Floats:
        exponents = self.scales.integers(begin, end).astype(np.int32)  # [R, groups]
        with np.errstate(over="ignore"):
            values = np.ldexp(VALUES[self._codes(begin, end)], exponents[..., None] - _BIAS)
            values[exponents == 255] = np.nan
            return values.reshape(end - begin, self.n_cols)

    def formats(self) -> tuple[str, ...]:
        spans = range(0, self.n_rows, _ROWS_AT_ONCE)
        exponents = (self.scales.integers(b, min(b + _ROWS_AT_ONCE, self.n_rows)) for b in spans)
        return ("MXFP4",) if all(part.max(initial=0) <= _MOST for part in exponents) else ()

    def blocks(self, begin: int, end: int, format: str) -> Bytes:
        exponents = self.scales.bytes(begin, end)[..., None]
        found = np.concatenate([exponents, halves(self._codes(begin, end))], axis=-1)  # [R, groups, 17]
        return found.reshape(end - begin, found.shape[1] * found.shape[2])

    def _codes(self, begin: int, end: int) -> Bytes:
        """[end - begin, groups, 32]"""
        found = codes(self.packed.bytes(begin, end))  # [R, C]
        return found.reshape(end - begin, self.scales.n_cols, GROUP)

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.packed.name, self.scales.name)

    @property
    def method(self) -> str:
        return "MXFP4"


def codes(packed: Bytes) -> Bytes:
    """Codes [..., 2 n] of bytes [..., n] that hold two of them, the low half first."""
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(*packed.shape[:-1], 2 * packed.shape[-1])
