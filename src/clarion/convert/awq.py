"""AWQ: 4-bit codes with zeros, as AutoAWQ lays them out for its product `gemm`.

Of a linear layer with weight [out, in] there are

    qweight int32 [in, out / 8]     codes, packed along out
    qzeros  int32 [groups, out / 8] zeros, in the same way
    scales  f16   [groups, out]

and weight[o, i] = (code[i, o] - zero[g, o]) * scale[g, o] with g = i / group_size. The eight codes of a
word, from its lowest bits on, are those of out 0, 2, 4, 6, 1, 3, 5, 7. (Lin et al., 2023, AWQ)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clarion.convert import bits
from clarion.convert.config import Config
from clarion.convert.gptq import group_size, packed_parts
from clarion.convert.integers import Codes, Integers, Scales
from clarion.convert.matrix import Bytes, Matrix
from clarion.convert.stored import FLOAT_BYTES, Stored
from clarion.errors import ModelError

_BITS, _IN_WORD = 4, 8
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # of out 0 to 7 in a word


@dataclass(frozen=True, slots=True)
class Awq:
    """A checkpoint's figure: columns with one scale, 0 for all of a row."""

    group_size: int


def read(config: Config) -> Awq:
    """The figures of `quantization_config`."""
    n_bits = config.integer("bits", "w_bit", default=_BITS)
    if n_bits != _BITS:
        raise config.unsupported("bits", n_bits, "4")
    version = config.get("version", "format")
    if version is not None and str(version).lower() != "gemm":
        raise config.unsupported("version", version, "gemm")
    config.only("zero_point", True)
    return Awq(group_size(config, "group_size", "q_group_size"))


def find(method: Awq, tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight of this name; None: it is not quantised.

    Raises:
        ModelError: a part is missing, or of another type or shape; groups do not divide the columns.
    """
    parts = packed_parts(tensors, name)
    if parts is None:
        return None
    codes, zeros, scales = parts
    size = method.group_size or max(codes.n_rows, 1)
    if len(codes.shape) != 2 or codes.n_rows % size:
        raise ModelError(
            f"{codes.path}: tensor {codes.name!r} has shape {list(codes.shape)}, expected two sizes of which "
            f"the first is a multiple of {size}, the size of a group"
        )
    n_cols, n_rows = codes.n_rows, codes.n_cols * _IN_WORD
    n_groups = n_cols // size
    scales.expect(tuple(FLOAT_BYTES), (n_groups, n_rows))
    zeros.expect(("I32", "U32"), (n_groups, codes.n_cols))
    return _Weight(
        codes.name, scales.dtype, (n_rows, n_cols), codes.path, _BITS, n_groups, size, codes, zeros, scales
    )


@dataclass(frozen=True)
class _Weight(Integers):
    packed: Stored
    stored_zeros: Stored
    stored_scales: Stored

    def codes(self, begin: int, end: int) -> Bytes:
        return _unpack(self.packed, begin, end)

    def scales(self, begin: int, end: int) -> Scales:
        return self.stored_scales.columns(begin, end).T

    def zeros(self, begin: int, end: int) -> Codes:
        return _unpack(self.stored_zeros, begin, end).astype(np.int16)

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.packed.name, self.stored_zeros.name, self.stored_scales.name)

    @property
    def method(self) -> str:
        return f"AWQ, {self.figures}"


def _unpack(stored: Stored, begin: int, end: int) -> Bytes:
    """Codes of out `begin` to `end`, [end - begin, n_rows of stored]."""
    first, last = begin // _IN_WORD, -(-end // _IN_WORD)
    words = stored.integer_columns(first, last)[..., None]  # [rows, words, 1]
    codes = bits.unpack(words, _BITS, _IN_WORD)[..., _PLACES]  # [rows, words, 8]
    skipped = begin - first * _IN_WORD
    return codes.reshape(stored.n_rows, _IN_WORD * (last - first))[:, skipped : skipped + end - begin].T
