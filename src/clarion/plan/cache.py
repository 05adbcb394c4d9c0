"""What the KV cache stores: a format for keys, one for values, and the bytes they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast, get_args

from clarion.errors import ParameterError
from clarion.plan.ir import CacheFormat

FORMATS: tuple[CacheFormat, ...] = get_args(CacheFormat)

# As the native cache pads heads (native/machine/kv_format.h): values to vectors, integer formats to blocks.
_LANES, _BLOCK = 16, 32
_FLOAT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}


@dataclass(frozen=True, slots=True)
class CacheFormats:
    """The formats of keys and values."""

    keys: CacheFormat
    values: CacheFormat

    @classmethod
    def parse(cls, kv: str | Sequence[str]) -> Self:
        """One format for both ("q8_0"), or one for each ("q8_0:f16", ("q8_0", "f16")).

        Raises:
            ParameterError: an unknown format, or not one or two of them.
        """
        names = kv.split(":") if isinstance(kv, str) else list(kv) if isinstance(kv, Sequence) else []
        if not 1 <= len(names) <= 2 or any(name not in FORMATS for name in names):
            raise ParameterError(f"kv is {kv!r}, expected one of {', '.join(FORMATS)}, or two as KEYS:VALUES")
        return cls(cast(CacheFormat, names[0]), cast(CacheFormat, names[-1]))

    def position_bytes(self, dim_k: int, dim_v: int) -> int:
        """Bytes of one position of one head with keys of dim_k elements and values of dim_v."""
        return _bytes(self.keys, dim_k, 1) + _bytes(self.values, dim_v, _LANES)

    def __str__(self) -> str:
        return self.keys if self.keys == self.values else f"{self.keys}:{self.values}"


def _bytes(name: CacheFormat, dim: int, multiple: int) -> int:
    if name in _BLOCK_BYTES:
        return -(-dim // _BLOCK) * _BLOCK_BYTES[name]
    return -(-dim // multiple) * multiple * _FLOAT_BYTES[name]
