"""bitsandbytes: codes of 4 bits that stand for floats of a codebook, or integers of 8 bits.

Of a weight named NAME with n numbers there are, for 4 bits,

    NAME                                [bytes, 1]    of any type: codes, first the high half of a byte
    NAME.absmax                         f32 [blocks]  a scale for each `blocksize` numbers in a row
    NAME.quant_map                      f32 [16]      the codebook
    NAME.quant_state.bitsandbytes__nf4  u8 [bytes]    JSON: quant_type, blocksize, shape, the model's dtype

(`__fp4` for the other codebook). Scales may be codes again ("double quantisation"): absmax is u8,
and

    scale = NAME.nested_quant_map[absmax] * NAME.nested_absmax + nested_offset

with one nested_absmax for each `nested_blocksize` scales. For 8 bits there are NAME i8 [out, in] and,
beside it, SCB f32 [out]: value = code * SCB / 127. Products are rounded to float32 where the library
rounds them. No format of GGUF holds such values. (Dettmers et al., 2023, QLoRA; 2022, LLM.int8())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clarion.convert import texts
from clarion.convert.config import Config
from clarion.convert.integers import Codes, Integers, Scales
from clarion.convert.matrix import Bytes, Floats, Matrix
from clarion.convert.stored import Stored, check_shape
from clarion.errors import ModelError, UnsupportedError

_KINDS = ("nf4", "fp4")
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class BitsAndBytes:
    """A checkpoint that says of each tensor how it is quantised."""


def read(config: Config) -> BitsAndBytes:
    """The figures of `quantization_config`, of which those of each tensor repeat what counts."""
    config.only("bnb_4bit_quant_type", *_KINDS)
    return BitsAndBytes()


def find(tensors: Mapping[str, Stored], name: str) -> Matrix | None:
    """The weight of this name; None: it is not quantised.

    Raises:
        ModelError: a part is missing, or of another type or shape.
        FormatError: the JSON of its figures is none.
    """
    stored, scales = tensors.get(name), tensors.get(name + ".absmax")
    if stored is None:
        return None
    if scales is not None:
        return _four(stored, scales, tensors, name)
    if stored.dtype != "I8":
        return None
    factor = tensors.get(name.removesuffix("weight") + "SCB")
    if factor is None:
        base = name.removesuffix("weight")
        raise ModelError(f"{stored.path}: tensor {base + 'SCB'!r} is missing, which {name!r} needs")
    order = tensors.get(name + "_format")
    if order is not None:
        order.expect(("U8",), (), (1,))
        if order.integers(0, 1).any():
            raise UnsupportedError(
                f"{order.path}: tensor {order.name!r} holds {order.integers(0, 1)[0, 0]}, supported: 0, rows"
            )
    if len(stored.shape) != 2:
        raise ModelError(
            f"{stored.path}: tensor {name!r} has shape {list(stored.shape)}, expected rows and columns"
        )
    factor.expect(("F32",), (stored.n_rows,))
    return _Eight(name, "F16", stored.shape, stored.path, 8, 1, max(stored.n_cols, 1), stored, factor, order)


def _four(stored: Stored, scales: Stored, tensors: Mapping[str, Stored], name: str) -> Matrix:
    def part(suffix: str) -> Stored:
        if name + suffix not in tensors:
            raise ModelError(f"{stored.path}: tensor {name + suffix!r} is missing, which {name!r} needs")
        return tensors[name + suffix]

    kind = next((kind for kind in _KINDS if f"{name}.quant_state.bitsandbytes__{kind}" in tensors), _KINDS[0])
    state = part(f".quant_state.bitsandbytes__{kind}")
    state.expect(("U8",))
    where = f"{state.path}: tensor {state.name!r}"
    values = texts.json(state.bytes(0, state.n_rows).tobytes(), where)
    config = Config(values, where)
    config.only("quant_type", kind)
    shape = check_shape(where, values.get("shape"))
    if len(shape) != 2 or stored.n_bytes != -(-shape[0] * shape[1] // 2):
        raise ModelError(
            f"{stored.path}: tensor {name!r} takes {stored.n_bytes} bytes, expected half as many as "
            f"there are numbers in {list(shape)}, the shape that {state.name!r} says"
        )
    block = config.integer("blocksize")
    n_blocks = -(-shape[0] * shape[1] // block)
    codebook = part(".quant_map")
    codebook.expect(("F32",), (16,))
    nested = None
    if scales.dtype == "U8":
        size = config.integer("nested_blocksize")
        offset = config.get("nested_offset")
        if type(offset) not in (int, float):
            raise config.error("nested_offset", offset, "a number")
        nested = _Nested(part(".nested_absmax"), part(".nested_quant_map"), size, float(offset))
        nested.scales.expect(("F32",), (-(-n_blocks // size),))
        nested.codebook.expect(("F32",), (256,))
    scales.expect(("F32", "U8"), (n_blocks,))
    return _Four(
        name, _DTYPES.get(str(config.get("dtype")), "F16"), shape, stored.path,
        kind, stored, state, codebook, scales, block, nested,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Nested:
    """What the scales' codes stand for."""

    scales: Stored
    codebook: Stored
    block: int
    offset: float


@dataclass(frozen=True)
class _Four(Matrix):
    kind: str
    stored: Stored
    state: Stored
    codebook: Stored
    scales: Stored
    block: int
    nested: _Nested | None

    def rows(self, begin: int, end: int) -> Floats:
        first, last = (
            begin * self.n_cols,
            end * self.n_cols,
        )  # numbers, which blocks cut without regard to rows
        packed = self._bytes(first // 2, -(-last // 2))
        codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        scales = self._scales()[first // self.block : -(-last // self.block)].repeat(self.block)
        with np.errstate(all="ignore"):  # what is no number afterwards is refused
            found = self.codebook.values()[codes] * scales[first % self.block :][: last - first]
        return found.reshape(end - begin, self.n_cols)

    def _bytes(self, begin: int, end: int) -> Bytes:
        """Bytes of the codes, whatever type they are said to be."""
        found = replace(self.stored, dtype="U8", shape=(self.stored.n_bytes, 1))
        return found.bytes(begin, end)

    def _scales(self) -> Floats:
        nested = self.nested
        if nested is None:
            return self.scales.values()
        values = nested.codebook.values()[self.scales.integers(0, 1)[0]]
        with np.errstate(all="ignore"):
            factors = nested.scales.values().repeat(nested.block)[: values.size]
            found: Floats = values * factors + np.float32(nested.offset)
            return found

    @property
    def parts(self) -> tuple[str, ...]:
        found = [self.stored, self.state, self.codebook, self.scales]
        found += [] if self.nested is None else [self.nested.scales, self.nested.codebook]
        return tuple(part.name for part in found)

    @property
    def method(self) -> str:
        return f"bitsandbytes, {self.kind}"


@dataclass(frozen=True)
class _Eight(Integers):
    stored: Stored
    factor: Stored
    order: Stored | None

    def codes(self, begin: int, end: int) -> Bytes:
        return self.stored.bytes(begin, end) ^ np.uint8(0x80)

    def scales(self, begin: int, end: int) -> Scales:
        return self.factor.values()[begin:end, None].astype(np.float64) / 127

    def zeros(self, begin: int, end: int) -> Codes:
        return np.full((1, 1), 128, np.int16)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part.name for part in (self.stored, self.factor, self.order) if part is not None)

    @property
    def method(self) -> str:
        return f"bitsandbytes, {self.figures}"
