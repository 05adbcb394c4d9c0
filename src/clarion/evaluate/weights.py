"""How far the weights of one file are from those of another, and their products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clarion.errors import ModelError
from clarion.evaluate.imatrix import Imatrix
from clarion.gguf import File, Tensor
from clarion.host import native

_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorError:
    """A tensor, and root mean squares of its error, over those of what is wanted.

    Attributes:
        error: of the weights.
        product_error: of the products with inputs of the importance matrix's size, in columns that are
            independent of each other; None where there is no importance.
    """

    name: str
    format: str
    error: float
    product_error: float | None


def compare(file: File, reference: File, imatrix: Imatrix | None = None) -> list[TensorError]:
    """The error of every matrix that both files have, in the file's order.

    Raises:
        ModelError: a tensor has another shape in the reference, or than the importance matrix says.
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
        experts, cols = math.prod(tensor.shape[:-2]), tensor.shape[-1]
        importance = imatrix.importance(name, experts, cols) if imatrix is not None else None
        plain, weighted = _errors(
            tensor, other, np.ones((experts, cols)) if importance is None else importance
        )
        product = None if importance is None else weighted
        errors.append(TensorError(name, tensor.format.name, plain, product))
    file.check()
    reference.check()
    return errors


def _errors(tensor: Tensor, reference: Tensor, importance: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Relative errors: of the weights, and weighted by the columns' importance [E, K]."""
    experts, n_cols = importance.shape
    n_rows = math.prod(tensor.shape[:-1]) // experts
    step = max(_CHUNK_ELEMENTS // n_cols, 1)
    sums = np.zeros((2, 2))  # squares of the error and of what is wanted: as they are, and weighted
    for expert, weights in enumerate(importance):
        for begin in range(0, n_rows, step):
            rows = slice(expert * n_rows + begin, expert * n_rows + min(begin + step, n_rows))
            wanted = _values(reference, rows)
            for i, x in enumerate((_values(tensor, rows) - wanted, wanted)):
                columns = np.square(x, dtype=np.float64).sum(0)  # [K]
                sums[i] += columns.sum(), columns @ weights
    plain, weighted = np.sqrt(np.divide(sums[0], sums[1], out=np.zeros(2), where=sums[1] > 0))
    return float(plain), float(weighted)


def _values(tensor: Tensor, rows: slice) -> npt.NDArray[np.float32]:
    n_cols = tensor.shape[-1]
    size = tensor.format.n_bytes((1, n_cols))
    data = np.ascontiguousarray(np.asarray(tensor.data)[rows.start * size : rows.stop * size])
    n = rows.stop - rows.start
    values: npt.NDArray[np.float32] = native().dequantize(tensor.format.type_id, data, n * n_cols)
    return values.reshape(n, n_cols)
