"""How far the weights of one file are from those of another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clarion.devices import native
from clarion.errors import ModelError
from clarion.gguf import File, Tensor

_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorError:
    """A tensor, and the root mean square of its error over that of the reference's values."""

    name: str
    format: str
    error: float


def compare(file: File, reference: File) -> list[TensorError]:
    """The error of every matrix that both files have, in the file's order.

    Raises:
        ModelError: a tensor has another shape in the reference.
    """
    errors = []
    for name, tensor in file.tensors.items():
        other = reference.tensors.get(name)
        if other is None or len(tensor.shape) < 2:
            continue
        if other.shape != tensor.shape:
            raise ModelError(
                f"{file.path}: tensor {name!r} has shape {list(tensor.shape)}, "
                f"the reference {list(other.shape)}"
            )
        errors.append(TensorError(name, tensor.format.name, _error(tensor, other)))
    file.check()
    reference.check()
    return errors


def _error(tensor: Tensor, reference: Tensor) -> float:
    error = size = 0.0
    n_rows, n_cols = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    step = max(_CHUNK_ELEMENTS // n_cols, 1)
    for begin in range(0, n_rows, step):
        wanted = _values(reference, begin, min(begin + step, n_rows))
        found = _values(tensor, begin, min(begin + step, n_rows))
        error += float(np.square(found - wanted, dtype=np.float64).sum())
        size += float(np.square(wanted, dtype=np.float64).sum())
    return math.sqrt(error / size) if size else 0.0


def _values(tensor: Tensor, begin: int, end: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    n_cols = tensor.shape[-1]
    size = tensor.format.n_bytes((1, n_cols))
    data = np.ascontiguousarray(np.asarray(tensor.data)[begin * size : end * size])
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = native().dequantize(
        tensor.format.type_id, data, (end - begin) * n_cols
    )
    return values
