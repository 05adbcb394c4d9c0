"""float32 rows as the bytes of a weight format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.convert.matrix import Bytes, Floats


def bf16(x: Floats) -> Bytes:
    """Rounded to nearest, ties to even. `x` is finite; what rounds beyond the range becomes infinite."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))  # cannot wrap: finite values lie below 0xFF800000
    return _raw((rounded >> 16).astype("<u2"))


def f16(x: Floats) -> Bytes:
    """Rounded to nearest, ties to even; what rounds beyond 65504 becomes infinite."""
    with np.errstate(over="ignore"):
        return _raw(x.astype("<f2"))


def f32(x: Floats) -> Bytes:
    return _raw(x.astype("<f4", copy=False))


def q8_0(x: Floats) -> Bytes:
    """Blocks of 32: a scale in float16, greatest magnitude / 127, then 32 integers, halves away from zero."""
    blocks = np.ascontiguousarray(x).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
        stored = scale.astype("<f2")
    scaled = blocks * inverse
    whole = np.floor(np.abs(scaled))
    away = whole + np.floor(2 * (np.abs(scaled) - whole))  # no sum with 0.5, which would itself be rounded
    quants = np.copysign(away, scaled).astype(np.int8)
    return _raw(np.concatenate([_raw(stored).reshape(-1, 2), _raw(quants).reshape(-1, 32)], axis=1))


ENCODERS: dict[str, Callable[[Floats], Bytes]] = {"F32": f32, "F16": f16, "BF16": bf16, "Q8_0": q8_0}

# Magnitudes from here on become infinite.
LIMITS = {
    "F32": np.inf,
    "F16": 65520.0,
    "BF16": (2 - 2.0**-8) * 2.0**127,
    "Q8_0": 127 * 65520.0,
}


def _raw(values: npt.NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
