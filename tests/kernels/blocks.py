"""Random weights in any format, and their float64 values by the `gguf` package's dequantisers."""

from __future__ import annotations

import functools

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from clarion.devices import native

FORMATS = {
    name: (type_id, block, size)  # weights and bytes of a block
    for type_id, name, block, size in native("generic").formats()
}
INTEGER_FORMATS = [name for name, (_, block, _) in FORMATS.items() if block > 1]
FLOAT_FORMATS = [name for name, (_, block, _) in FORMATS.items() if block == 1]


@functools.cache
def _pool(name: str) -> np.ndarray:
    """Blocks of random bytes whose weights are finite and of ordinary size."""
    type_id, block, size = FORMATS[name]
    rng = np.random.default_rng(type_id)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < 4096:
        raw = rng.integers(0, 256, (20000, size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = dequantize(raw, GGMLQuantizationType(type_id)).reshape(len(raw), block)
            largest = np.abs(values).max(axis=1)
        kept.append(raw[np.isfinite(values).all(axis=1) & (largest > 1e-3) & (largest < 8)])
    return np.concatenate(kept)


def random_matrix(name: str, rows: int, cols: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a random matrix, and its weights: uint8 [n], float64 [rows, cols]."""
    type_id, block, size = FORMATS[name]
    pool = _pool(name)
    picked = np.random.default_rng(seed).integers(0, len(pool), rows * (cols // block))
    raw = np.ascontiguousarray(pool[picked]).reshape(rows, cols // block * size)
    weights = dequantize(raw, GGMLQuantizationType(type_id)).reshape(rows, cols).astype(np.float64)
    return raw.reshape(-1), weights
