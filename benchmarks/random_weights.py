"""Random blocks of the weight formats that the `gguf` package names, scaled to a chosen deviation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]  # [blocks, bytes of a block]

PLAIN = ("F32", "F16", "BF16")

# Where a block keeps its float16 scales, and what each is worth next to the first. A minimum is set so that
# the weights of uniform bits have mean zero: the mean quant times the first scale.
HALVES: dict[str, dict[int, float]] = {
    "Q1_0": {0: 1.0},
    "Q4_0": {0: 1.0},
    "Q4_1": {0: 1.0, 2: -7.5},
    "Q5_0": {0: 1.0},
    "Q5_1": {0: 1.0, 2: -15.5},
    "Q8_0": {0: 1.0},
    "Q2_K": {80: 1.0, 82: 1.5},
    "Q3_K": {108: 1.0},
    "Q4_K": {0: 1.0, 2: 7.5},
    "Q5_K": {0: 1.0, 2: 15.5},
    "Q6_K": {208: 1.0},
    "IQ1_S": {0: 1.0},
    "IQ2_XXS": {0: 1.0},
    "IQ2_XS": {0: 1.0},
    "IQ2_S": {0: 1.0},
    "IQ3_XXS": {0: 1.0},
    "IQ3_S": {0: 1.0},
    "IQ4_NL": {0: 1.0},
    "IQ4_XS": {0: 1.0},
    "TQ1_0": {52: 1.0},
    "TQ2_0": {64: 1.0},
}
# Formats whose scales are floats of one byte: where the first is, and how many.
BYTES = {"MXFP4": (0, 1), "NVFP4": (0, 4)}
# The deviation of uniform bits with a scale of one, where the package cannot dequantise them.
DEVIATIONS = {"Q1_0": 1.0}
BLOCK_FORMATS = (*HALVES, *BYTES, "IQ1_M")


def random_rows(
    generator: np.random.Generator, format: str, shape: tuple[int, ...], deviation: float
) -> NDArray[np.uint8]:
    """Return the bytes of a tensor, [rows, bytes of a row], of mean 0; norm gains (one dimension) are near 1.

    Raises:
        ValueError: the rows are not whole blocks.
    """
    kind = GGMLQuantizationType[format]
    if format in PLAIN:
        values = generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        values += np.float32(len(shape) == 1)
        return (values if format == "F32" else quants.quantize(values, kind)).view(np.uint8)
    block_size, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % block_size:
        raise ValueError(f"{format} needs rows of a multiple of {block_size} weights, found {shape[-1]}")
    row_bytes = shape[-1] // block_size * block_bytes
    raw = np.frombuffer(generator.bytes(shape[0] * row_bytes), np.uint8).copy()
    set_deviation(format, raw.reshape(-1, block_bytes), deviation)
    return raw.reshape(shape[0], row_bytes)


def set_deviation(format: str, blocks: Blocks, deviation: float) -> None:
    """Write scales into blocks of random bytes that give their weights this deviation."""
    sample = blocks[:64].copy()
    if format in BYTES:
        found = {byte: _deviation(format, sample, _set_byte, byte) for byte in range(1, 127)}
        _set_byte(format, blocks, min(found, key=lambda byte: abs(found[byte] - deviation)))
    else:
        put = _set_nibbles if format == "IQ1_M" else _set_halves
        of_one = DEVIATIONS.get(format) or _deviation(format, sample, put, 1.0)
        put(format, blocks, deviation / of_one)


def _deviation(format: str, sample: Blocks, put: Callable[[str, Blocks, float], None], scale: float) -> float:
    put(format, sample, scale)
    return float(np.std(quants.dequantize(sample, GGMLQuantizationType[format])))


def _set_halves(format: str, blocks: Blocks, scale: float) -> None:
    for offset, factor in HALVES[format].items():
        blocks[:, offset : offset + 2] = np.array([scale * factor], np.float16).view(np.uint8)


def _set_byte(format: str, blocks: Blocks, scale: float) -> None:
    first, count = BYTES[format]
    blocks[:, first : first + count] = int(scale)


def _set_nibbles(format: str, blocks: Blocks, scale: float) -> None:
    """IQ1_M has the float16 in the upper four bits of the four 16-bit words that end the block."""
    bits = int(np.float16(scale).view(np.uint16))
    for word, offset in enumerate(range(49, 56, 2)):
        blocks[:, offset] = blocks[:, offset] & 0x0F | (bits >> 4 * word & 15) << 4
