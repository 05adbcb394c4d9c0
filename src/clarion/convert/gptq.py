"""GPTQ: integer codes packed along the columns of a weight that is stored transposed.

Of a linear layer with weight [out, in] there are

    qweight int32 [in * bits / 32, out]      codes of 2, 3, 4 or 8 bits, packed along in
    qzeros  int32 [groups, out * bits / 32]  zeros, packed along out; in the format `gptq` less one
    scales  f16   [groups, out]
    g_idx   int32 [in]                       the group of each column; without it groups follow each other

and weight[o, i] = (code[i, o] - zero[g, o]) * scale[g, o] with g = g_idx[i]. With `desc_act` the columns
of a group lie anywhere. A zero less one wraps around: of 4 bits, a stored 15 is zero 0. None is 16,
because a group has a code that stands for 0. With `sym` all zeros are 2^(bits - 1), the middle. (Frantar
et al., 2022, GPTQ; the layout is AutoGPTQ's.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clarion.convert import bits
from clarion.convert.config import Config
from clarion.convert.integers import Codes, Integers, Scales
from clarion.convert.matrix import Bytes, Matrix
from clarion.convert.stored import FLOAT_BYTES, Stored
from clarion.errors import ModelError

_BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Gptq:
    """A checkpoint's figures.

    Attributes:
        bits: of a code.
        group_size: columns with one scale; 0: all of a row.
        less_one: whether zeros are stored less one.
        symmetric: whether all zeros are the middle of the codes.
    """

    bits: int
    group_size: int
    less_one: bool
    symmetric: bool


def read(config: Config) -> Gptq:
    """The figures of `quantization_config`."""
    n_bits = config.integer("bits")
    if n_bits not in _BITS:
        raise config.unsupported("bits", n_bits, "2, 3, 4 or 8")
    layout = config.get("checkpoint_format", "format")
    layout = "gptq" if layout is None else layout
    config.only("is_marlin_format", False)
    if layout not in ("gptq", "gptq_v2"):
        raise config.unsupported("checkpoint_format", layout, "gptq or gptq_v2")
    # Names of modules with figures of their own, or with none where they begin with a minus.
    dynamic = config.child("dynamic")
    for module in dynamic.keys():  # noqa: SIM118
        if not module.startswith("-:"):
            raise config.unsupported("dynamic", module, "only modules that are not quantised")
    symmetric = config.flag("sym", default=False)
    return Gptq(n_bits, group_size(config, "group_size"), layout == "gptq", symmetric)


def group_size(config: Config, *keys: str) -> int:
    """The columns that share a scale; 0 for all of a row, which configurations write as -1."""
    return 0 if config.get(*keys) == -1 else config.integer(*keys)


def packed_parts(tensors: Mapping[str, Stored], name: str) -> tuple[Stored, Stored, Stored] | None:
    """Codes, zeros and scales of the weight of this name; None: it is not quantised.

    Raises:
        ModelError: a part is missing, or the codes are of another type.
    """
    base = name.removesuffix("weight")
    codes = tensors.get(base + "qweight")
    if base == name or codes is None:
        return None
    for part in ("qzeros", "scales"):
        if base + part not in tensors:
            raise ModelError(f"{codes.path}: tensor {base + part!r} is missing, which {codes.name!r} needs")
    codes.expect(("I32", "U32"))
    return codes, tensors[base + "qzeros"], tensors[base + "scales"]


def find(method: Gptq, tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight of this name; None: it is not quantised.

    Raises:
        ModelError: a part is missing, or of another type or shape.
    """
    parts = packed_parts(tensors, name)
    if parts is None:
        return None
    codes, zeros, scales = parts
    order = tensors.get(name.removesuffix("weight") + "g_idx")
    if len(codes.shape) != 2 or codes.shape[0] * 32 % method.bits:
        raise ModelError(
            f"{codes.path}: tensor {codes.name!r} has shape {list(codes.shape)}, expected two sizes of which "
            f"the first holds whole codes of {method.bits} bits"
        )
    n_cols, n_rows = codes.shape[0] * 32 // method.bits, codes.shape[1]
    size = method.group_size or max(n_cols, 1)
    n_groups = -(-n_cols // size)
    scales.expect(tuple(FLOAT_BYTES), (n_groups, n_rows))
    zeros.expect(("I32", "U32"), (n_groups, bits.n_words(n_rows, method.bits)))
    if order is not None:
        order.expect(("I32", "I64"), (n_cols,))
        groups = order.integers(0, 1)
        if n_cols and not 0 <= groups.min() <= groups.max() < n_groups:
            raise ModelError(
                f"{order.path}: tensor {order.name!r} holds {groups.min()} to {groups.max()}, expected the "
                f"numbers of {n_groups} groups"
            )
    shape = (n_rows, n_cols)
    return _Weight(
        codes.name, scales.dtype, shape, codes.path, method.bits, n_groups, size, codes, zeros, scales, order,
        method.less_one, method.symmetric,
    )  # fmt: skip


@dataclass(frozen=True)
class _Weight(Integers):
    packed: Stored
    stored_zeros: Stored
    stored_scales: Stored
    order: Stored | None
    less_one: bool
    symmetric: bool

    def codes(self, begin: int, end: int) -> Bytes:
        words = np.ascontiguousarray(self.packed.integer_columns(begin, end).T)  # [R, words]
        return bits.unpack(words, self.bits, self.n_cols)

    def scales(self, begin: int, end: int) -> Scales:
        return self.stored_scales.columns(begin, end).T

    def zeros(self, begin: int, end: int) -> Codes:
        found = packed_columns(self.stored_zeros, self.bits, begin, end).T.astype(np.int16)
        zeros = (found + np.int16(1)) & np.int16((1 << self.bits) - 1) if self.less_one else found
        middle = 1 << (self.bits - 1)
        if self.symmetric and (zeros != middle).any():
            # Either another configuration than the weights', or another format of zeros: each would move
            # all weights by a step.
            raise ModelError(
                f"{self.path}: tensor {self.stored_zeros.name!r} holds zeros of {found[zeros != middle][0]}, "
                f"expected {middle - self.less_one}, as sym is true and checkpoint_format is "
                f"{'gptq' if self.less_one else 'gptq_v2'}"
            )
        return zeros

    def group_of(self) -> npt.NDArray[np.intp]:
        if self.order is None:
            return super().group_of()
        found: npt.NDArray[np.intp] = self.order.integers(0, 1)[0].astype(np.intp)
        return found

    @property
    def parts(self) -> tuple[str, ...]:
        found = (self.packed, self.stored_zeros, self.stored_scales, self.order)
        return tuple(part.name for part in found if part is not None)

    @property
    def method(self) -> str:
        return f"GPTQ, {self.figures}"


def packed_columns(stored: Stored, n_bits: int, begin: int, end: int) -> Bytes:
    """Codes `begin` to `end` of each row of packed words, [n_rows, end - begin]."""
    first = begin // 32 * n_bits  # 32 codes are whole words
    last = min(-(-end // 32) * n_bits, stored.n_cols)
    skipped = begin // 32 * 32
    return bits.unpack(stored.integer_columns(first, last), n_bits, end - skipped)[:, begin - skipped :]
