"""compressed-tensors: integers, float8 or float4, each tensor by one of several schemes.

A linear layer with weight [out, in] is stored as one of

    weight_packed i32 [out, words]   codes of 1 to 8 bits, packed along a row, with weight_shape i64 [2]
    weight        i8  [out, in]      whole numbers of up to 8 bits
    weight        f8  [out, in]
    weight_packed u8  [out, in / 2]  float4, the low half of a byte first

and weight_scale: one, [out, 1] or [out, groups]; of float8 also one for each block; of float4 exponents
u8 [out, in / 32] (MXFP4), or f8 [out, in / 16] beside weight_global_scale f32 [1] (NVFP4). Then value =
(code - zero) * scale, of NVFP4 code * scale / global scale. Packed integers have 2^(bits - 1) added.
weight_zero_point is i8 [out, groups], or packed along out as i32 [words, groups]; without it zero is 0.
Columns belong to groups in their order, or as weight_g_idx says. Which scheme is a tensor's follows from
its parts and their shapes. Activations are not rounded as schemes say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clarion.convert import bits, float8, mxfp4
from clarion.convert.config import Config
from clarion.convert.integers import Codes, Integers, Scales
from clarion.convert.matrix import Bytes, Floats, Matrix
from clarion.convert.stored import FLOAT_BYTES, Stored
from clarion.errors import ModelError

_FORMATS = (
    *("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"),
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized"),
)
_STRATEGIES = ("tensor", "channel", "group", "block", "tensor_group")
_NV_GROUP = 16


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the weights of some layers are stored.

    Attributes:
        integer: whether codes are integers; else floats.
        bits: of a code.
        group_size: columns with one scale; 0: all of a row.
        symmetric: whether there are no zeros.
        block: rows and columns with one scale of float8; (0, 0): no blocks.
    """

    integer: bool
    bits: int
    group_size: int
    symmetric: bool
    block: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CompressedTensors:
    """A checkpoint's schemes."""

    schemes: tuple[Scheme, ...]

    def block(self) -> tuple[int, int]:
        """The blocks of float8, where one scheme has any."""
        return next((scheme.block for scheme in self.schemes if min(scheme.block)), (0, 0))


def read(config: Config) -> CompressedTensors:
    """The figures of `quantization_config`."""
    config.only("format", *_FORMATS)
    config.child("sparsity_config").only("format", "dense")
    config.only("transform_config", {})
    groups = config.child("config_groups")
    schemes = []
    for name in groups.keys():  # noqa: SIM118
        group = groups.child(name)
        group.only("format", *_FORMATS)
        if group.get("weights") is not None:
            schemes.append(_scheme(group.child("weights")))
    # Older checkpoints of float8 describe themselves as those of transformers do.
    block = float8.read(config).block
    return CompressedTensors((*schemes, *([Scheme(False, 8, 0, True, block)] if min(block) else [])))


def _scheme(weights: Config) -> Scheme:
    weights.only("type", "int", "float")
    strategy = weights.get("strategy")
    if strategy is None:
        strategy = "group" if weights.get("group_size") else "tensor"
    weights.only("strategy", *_STRATEGIES)
    n_bits = weights.integer("num_bits", default=8)
    integer = weights.get("type") in (None, "int")
    if n_bits > 8 or not (integer or n_bits in (4, 8)):
        raise weights.unsupported("num_bits", n_bits, "1 to 8 of integers, 4 or 8 of floats")
    size = weights.integer("group_size") if strategy in ("group", "tensor_group") else 0
    block = (0, 0)
    if strategy == "block":
        block = float8.block_of(weights, "block_structure", weights.get("block_structure"))
    elif size and not integer and n_bits == 8:
        block = (1, size)
    return Scheme(integer, n_bits, size, weights.flag("symmetric", default=True), block)


def find(method: CompressedTensors, tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight of this name; None: it is not stored as this library does.

    Raises:
        ModelError: a part is missing, or of a type or shape that no scheme has.
    """
    packed, plain, scale = (tensors.get(name + end) for end in ("_packed", "", "_scale"))
    if packed is not None:
        if scale is None:
            raise ModelError(
                f"{packed.path}: tensor {name + '_scale'!r} is missing, which {packed.name!r} needs"
            )
        if packed.dtype == "U8":
            return _four(packed, scale, tensors, name)
        return _integers(method, packed, scale, tensors, name)
    if plain is not None and plain.dtype == "I8":
        if scale is None:
            raise ModelError(f"{plain.path}: tensor {name + '_scale'!r} is missing, which {name!r} needs")
        return _integers(method, plain, scale, tensors, name)
    return float8.find(float8.Float8(method.block()), tensors, name)


def _integers(
    method: CompressedTensors, codes: Stored, scale: Stored, tensors: Mapping[str, Stored], name: str
) -> Matrix:
    zero, order, size = (tensors.get(name + end) for end in ("_zero_point", "_g_idx", "_shape"))
    packed = codes.dtype != "I8"
    codes.expect(("I32", "I8"))
    shape = codes.shape
    if packed:
        if size is None:
            raise ModelError(
                f"{codes.path}: tensor {name + '_shape'!r} is missing, which {codes.name!r} needs"
            )
        size.expect(("I64", "I32"), (2,))
        shape = tuple(size.integers(0, 1)[0].tolist())
    scheme = next((scheme for scheme in method.schemes if _fits(scheme, codes, scale, zero, shape)), None)
    if scheme is None:
        parts = ", ".join(f"{part.name} {list(part.shape)}" for part in (codes, scale, zero) if part)
        known = "; ".join(_described(scheme) for scheme in method.schemes) or "none"
        raise ModelError(
            f"{codes.path}: {parts} for a weight of {list(shape)} are of no scheme in config.json: {known}"
        )
    scale.expect(tuple(FLOAT_BYTES))
    if zero is not None:
        zero.expect(("I8", "I32"))
    group_size = scheme.group_size or max(shape[1], 1)
    n_groups = -(-shape[1] // group_size)
    if order is not None:
        order.expect(("I32", "I64"), (shape[1],))
        groups = order.integers(0, 1)
        if not (groups == -1).all() and not 0 <= groups.min() <= groups.max() < n_groups:
            raise ModelError(
                f"{order.path}: tensor {order.name!r} holds {groups.min()} to {groups.max()}, expected the "
                f"numbers of {n_groups} groups"
            )
        order = None if (groups == -1).all() else order
    used = tuple(part.name for part in (codes, scale, zero, size, tensors.get(name + "_g_idx")) if part)
    return _Weight(
        codes.name, scale.dtype, shape, codes.path, scheme.bits if packed else 8, n_groups, group_size,
        codes, scale, zero, order, used,
    )  # fmt: skip


def _fits(scheme: Scheme, codes: Stored, scale: Stored, zero: Stored | None, shape: tuple[int, ...]) -> bool:
    """Whether the parts have the shapes that the scheme gives a weight of this shape."""
    if not scheme.integer or len(shape) != 2 or min(shape) < 0 or not (scheme.symmetric or zero):
        return False
    rows, cols = shape
    if codes.dtype == "I8":
        words, zero_rows = cols, rows
    else:
        words, zero_rows = bits.n_words(cols, scheme.bits), bits.n_words(rows, scheme.bits)
    groups = -(-cols // scheme.group_size) if scheme.group_size else 1
    scales = {(rows, groups)} | ({(1,), (), (rows,)} if groups == 1 else set())
    if zero is not None and zero.dtype == "I8":
        zero_rows = rows
    return (
        codes.shape == (rows, words)
        and scale.shape in scales
        and (zero is None or zero.shape in {(zero_rows, groups)} | scales)
    )


def _described(scheme: Scheme) -> str:
    kind = "integers" if scheme.integer else "floats"
    groups = f" in groups of {scheme.group_size}" if scheme.group_size else ""
    return f"{kind} of {scheme.bits} bits{groups}, {'without' if scheme.symmetric else 'with'} zeros"


@dataclass(frozen=True)
class _Weight(Integers):
    stored_codes: Stored
    stored_scales: Stored
    stored_zeros: Stored | None
    order: Stored | None
    used: tuple[str, ...]

    def codes(self, begin: int, end: int) -> Bytes:
        found = self.stored_codes.integers(begin, end)
        if self.stored_codes.dtype == "I8":
            return (found.astype(np.int16) + self._middle).astype(np.uint8)
        return bits.unpack(found, self.bits, self.n_cols)

    def scales(self, begin: int, end: int) -> Scales:
        if self.stored_scales.n_elements == 1:
            return self.stored_scales.values().reshape(1, 1).repeat(end - begin, axis=0)
        return self.stored_scales.values().reshape(self.n_rows, self.n_groups)[begin:end]

    def zeros(self, begin: int, end: int) -> Codes:
        zeros = self.stored_zeros
        if zeros is None:
            return np.full((1, 1), self._middle, np.int16)
        if zeros.dtype == "I8":
            found: Codes = zeros.integers(0, zeros.n_rows).astype(np.int16) + self._middle
            return (
                found.reshape(1, 1)
                if found.size == 1
                else found.reshape(self.n_rows, self.n_groups)[begin:end]
            )
        first = begin // 32
        words = zeros.integers(first * self.bits, min(-(-end // 32) * self.bits, zeros.n_rows))
        codes = bits.unpack(np.ascontiguousarray(words.T), self.bits, end - 32 * first)
        return codes[:, begin - 32 * first :].T.astype(np.int16)

    def group_of(self) -> npt.NDArray[np.intp]:
        if self.order is None:
            return super().group_of()
        found: npt.NDArray[np.intp] = self.order.integers(0, 1)[0].astype(np.intp)
        return found

    @property
    def _middle(self) -> np.int16:
        return np.int16(1 << (self.bits - 1))

    @property
    def parts(self) -> tuple[str, ...]:
        return self.used

    @property
    def method(self) -> str:
        return f"compressed-tensors, {self.figures}"


def _four(packed: Stored, scale: Stored, tensors: Mapping[str, Stored], name: str) -> Matrix:
    """Float4: of MXFP4 where scales are exponents, else of NVFP4."""
    if scale.dtype == "U8":
        return mxfp4.matrix(packed, scale)
    total = tensors.get(name + "_global_scale")
    if total is None:
        raise ModelError(
            f"{packed.path}: tensor {name + '_global_scale'!r} is missing, which {packed.name!r} needs"
        )
    n_cols = packed.n_cols * 2
    if len(packed.shape) != 2 or n_cols % _NV_GROUP:
        raise ModelError(
            f"{packed.path}: tensor {packed.name!r} has shape {list(packed.shape)}, expected two sizes, the "
            f"second a multiple of 8"
        )
    scale.expect(("F8_E4M3",), (packed.shape[0], n_cols // _NV_GROUP))
    total.expect(("F32",), (1,), ())
    return _Nv(packed.name, "BF16", (packed.shape[0], n_cols), packed.path, packed, scale, total)


@dataclass(frozen=True)
class _Nv(Matrix):
    packed: Stored
    scale: Stored
    total: Stored

    def rows(self, begin: int, end: int) -> Floats:
        values = mxfp4.VALUES[mxfp4.codes(self.packed.bytes(begin, end))]  # [R, C]
        with np.errstate(all="ignore"):  # what is no number afterwards is refused
            scales = self.scale.rows(begin, end).astype(np.float64) / self.total.values().reshape(1, 1)
            return (values * scales.repeat(_NV_GROUP, axis=1)).astype(np.float32)

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.packed.name, self.scale.name, self.total.name)

    @property
    def method(self) -> str:
        return "compressed-tensors, NVFP4"
