"""One matrix of weights as the bytes of a weight format, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.errors import ModelError, ParameterError, UnsupportedError
from clarion.gguf import Format, format_named, format_of
from clarion.host import native, quantizer
from clarion.host.threads import MOST_THREADS, default_threads

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
# float32, float16, or uint16: the bits of bfloat16.
Values = npt.NDArray[Any]

_CHUNK_ELEMENTS = 1 << 22
# Of the largest importance in a block: products with squares of weights stay within float32.
_LEAST_SHARE = 2.0**-80


@dataclass(frozen=True, slots=True)
class TensorError:
    """Sums over a matrix, weighted by the columns' importance where there is one."""

    squared: float  # of (quantized - wanted)^2
    norm: float  # of wanted^2

    @property
    def relative(self) -> float:
        """Root mean square of the error over that of the weights."""
        return float(np.sqrt(self.squared / self.norm)) if self.norm else 0.0


def writable() -> list[Format]:
    """The formats that can be written, by the bits that they take for a weight."""
    found = [format_named("F32"), *(format_of(type_id) for type_id in quantizer().writable())]
    return sorted(found, key=lambda f: (f.block_bytes / f.block_size, f.name))


def quantize_tensor(
    rows: Floats,
    format_name: str,
    importance: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> Bytes:
    """The rows as a format's blocks.

    Args:
        rows: [rows, cols]; cols is a multiple of the format's block.
        format_name: as `Q4_K`.
        importance: [cols], how much a squared error in each column counts, not negative; None: all alike.
        threads: None: one for each core. They do not change the bytes.

    Returns:
        uint8 [rows, bytes of a row].

    Raises:
        UnsupportedError: no such format, or none that can be written.
        ParameterError: rows are no whole blocks, or the importance does not fit them.
        ModelError: a weight is not finite, or larger than the format can hold; the message names its place.
        KeyboardInterrupt: Ctrl-C.
    """
    return encode_rows(np.ascontiguousarray(rows, np.float32), format_named(format_name), importance, threads)


def encode_rows(
    rows: Values,
    format: Format,
    importance: npt.NDArray[Any] | None,
    threads: int | None,
    where: str = "weights",
    first: Sequence[int] = (0,),
) -> Bytes:
    """As `quantize_tensor`, for all kinds of rows. An error names `where` and counts rows from `first`, whose
    last number is that of the first row."""
    if rows.ndim != 2 or rows.shape[1] % format.block_size:
        raise ParameterError(
            f"{where}: shape is {list(rows.shape)}, expected [rows, cols] with cols a multiple of "
            f"{format.block_size} for {format.name}"
        )
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ParameterError(f"threads is {threads}, allowed: 1 to {MOST_THREADS}")
    if format.name == "F32":
        wide = _widened(rows)
        finite = np.isfinite(wide)
        bad = -1 if finite.all() else int(np.argmin(finite))
        data, limit = wide.view(np.uint8), np.inf
    else:
        limits = quantizer().writable()
        if format.type_id not in limits:
            names = ", ".join(f.name for f in writable())
            raise UnsupportedError(f"weight format {format.name} cannot be written, supported: {names}")
        weights = None if importance is None else _normalized(importance, rows.shape[1], format.block_size)
        data, bad = quantizer().quantize(format.type_id, rows, weights, threads or default_threads())
        limit = limits[format.type_id]
    if bad >= 0:
        row, column = divmod(bad, rows.shape[1])
        value = _widened(rows[row : row + 1])[0, column]
        expected = f"at most {limit:g} in magnitude" if np.isfinite(value) else "finite numbers"
        place = [*first[:-1], first[-1] + row, column]
        raise ModelError(f"{where}: found {value:g} at {place}, {format.name} holds {expected}")
    encoded: Bytes = data
    return encoded


def dequantize_tensor(data: Bytes, format_name: str, cols: int) -> Floats:
    """What the bytes stand for: float32 [rows, cols]."""
    format = format_named(format_name)
    n = data.size // format.n_bytes((1, cols)) * cols
    values: Floats = native().dequantize(format.type_id, np.ascontiguousarray(data).reshape(-1), n)
    return values.reshape(-1, cols)


def tensor_error(
    rows: Floats, data: Bytes, format_name: str, importance: npt.NDArray[Any] | None = None
) -> TensorError:
    """How far quantized rows are from the wanted ones.

    Args:
        rows: [rows, cols].
        data: what `quantize_tensor` made of them.
        importance: [cols], or None: all columns count alike.
    """
    squared = norm = 0.0
    cols = rows.shape[1]
    weights: npt.NDArray[Any] = np.ones(cols) if importance is None else importance.astype(np.float64)
    step = max(_CHUNK_ELEMENTS // max(cols, 1), 1)
    for begin in range(0, len(rows), step):
        wanted = rows[begin : begin + step]
        error = dequantize_tensor(data[begin : begin + step], format_name, cols) - wanted
        squared += float(np.square(error, dtype=np.float64).sum(0) @ weights)
        norm += float(np.square(wanted, dtype=np.float64).sum(0) @ weights)
    return TensorError(squared, norm)


def _widened(rows: Values) -> Floats:
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(rows, np.float32)


def _normalized(importance: npt.NDArray[Any], cols: int, block: int) -> Floats | None:
    """At most 1 in each block: a block's bytes depend on how its own columns compare, and float32 need not
    hold how those of different blocks do. Where no column of a block counts, all do alike."""
    values = np.asarray(importance, np.float64)
    if values.shape != (cols,) or not np.isfinite(values).all() or (values < 0).any():
        raise ParameterError(
            f"importance has shape {list(values.shape)}, expected [{cols}], finite and not negative"
        )
    blocks = values.reshape(-1, block)
    most = blocks.max(1, keepdims=True, initial=0.0)
    if block == 1 or not most.any():
        return None
    share = np.where(most > 0, blocks, 1.0) / np.where(most > 0, most, 1.0)
    counted: Floats = np.where(share > 0, np.maximum(share, _LEAST_SHARE), 0.0).astype(np.float32)
    return counted.reshape(-1)
