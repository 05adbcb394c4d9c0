"""Random weights in any format, and their float64 values by the `gguf` package's dequantisers.

The package lists some formats without dequantising them; those few are written out here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from gguf import GGMLQuantizationType
from gguf import quants as theirs

from clarion._native import files

FORMATS = {
    name: (type_id, block, size)  # weights and bytes of a block
    for type_id, name, block, size in files.formats()
}
INTEGER_FORMATS = [name for name, (_, block, _) in FORMATS.items() if block > 1]
FLOAT_FORMATS = [name for name, (_, block, _) in FORMATS.items() if block == 1]


def _f32(raw: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(raw).view(dtype).astype(np.float32)


def _signs(raw: np.ndarray) -> np.ndarray:
    return np.unpackbits(raw, axis=1, bitorder="little").astype(np.float32) * 2 - 1


def _pairs(raw: np.ndarray) -> np.ndarray:
    """Two bits a value, lowest first, less one."""
    return (raw[:, :, None] >> np.arange(0, 8, 2) & 3).reshape(len(raw), -1).astype(np.float32) - 1


# uint8 [blocks, bytes of a block] -> float32 [blocks, weights of a block]
_OURS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F64": lambda raw: _f32(raw, "<f8"),
    "Q8_1": lambda raw: _f32(raw[:, :2], "<f2") * _f32(raw[:, 4:], "i1"),
    "Q8_K": lambda raw: _f32(raw[:, :4], "<f4") * _f32(raw[:, 4:260], "i1"),
    "Q1_0": lambda raw: _f32(raw[:, :2], "<f2") * _signs(raw[:, 2:]),
    "Q2_0": lambda raw: _f32(raw[:, :2], "<f2") * _pairs(raw[:, 2:]),
}


def dequantize(name: str, raw: np.ndarray) -> np.ndarray:
    """Weights of some blocks: uint8 [n, bytes of a block] to float32 [n, weights of a block]."""
    type_id, block, _ = FORMATS[name]
    ours = _OURS.get(name)
    values = ours(raw) if ours else theirs.dequantize(raw, GGMLQuantizationType(type_id))
    return values.reshape(len(raw), block)


@functools.cache
def _pool(name: str) -> np.ndarray:
    """Blocks of random bytes whose weights are finite and of ordinary size."""
    type_id, _, size = FORMATS[name]
    rng = np.random.default_rng(type_id)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < 4096:
        raw = rng.integers(0, 256, (20000, size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = dequantize(name, raw)
            largest = np.abs(values).max(axis=1)
        kept.append(raw[np.isfinite(values).all(axis=1) & (largest > 1e-3) & (largest < 8)])
    return np.concatenate(kept)


def random_matrix(name: str, rows: int, cols: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a random matrix, and its weights: uint8 [n], float64 [rows, cols]."""
    _, block, _ = FORMATS[name]
    pool = _pool(name)
    picked = np.random.default_rng(seed).integers(0, len(pool), rows * (cols // block))
    raw = np.ascontiguousarray(pool[picked])
    return raw.reshape(-1), dequantize(name, raw).reshape(rows, cols).astype(np.float64)
