"""The same weights in float64 arithmetic: what every engine only approximates.

A plan's operations are computed by their definitions (clarion/plan/operations.py), for one text from its
beginning, all tokens at once. Nothing is rounded on the way: encoded buffers hold their values, keys and
values are kept as they are. Weights are the float32
values that the file's blocks stand for, decoded when they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.gguf import File
from clarion.host import native
from clarion.model import make_plan
from clarion.plan.ir import Weight
from clarion.plan.observe import Observer
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import OUTPUT, Plan

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class Exact:
    """A model file, computed in float64."""

    def __init__(self, file: File, context: int, observe: Observer | None = None) -> None:
        """The file stays open as long as this is in use. `observe`: as for `clarion.plan.compile`.

        Raises:
            UnsupportedError, ModelError: as `clarion.load`.
        """
        self._file = file
        self.plan: Plan = make_plan(file, context=context, activations="exact", kv="f32", observe=observe)
        self._last_use = {i: at for at, op in enumerate(self.plan.ops) for i in (*op.inputs, *op.outputs)}

    def logits(self, tokens: Sequence[int], first: int = 0) -> Doubles:
        """The logits after every token from `first` on: [T - first, n_vocab].

        Raises:
            FileError: the file changed while it was read.
        """
        return self.run(tokens, first)[OUTPUT]

    def run(self, tokens: Sequence[int], first: int = 0) -> dict[str, Doubles]:
        """What the plan keeps, by name; rows of outputs are those of the tokens from `first` on.

        Raises:
            FileError: the file changed while it was read.
        """
        batch = _Text(self.plan, np.asarray(tokens, np.int64), first)
        values: dict[int, Array] = {}
        for at, op in enumerate(self.plan.ops):
            results = OPERATIONS[op.op].compute(
                np,
                [values[i] for i in op.inputs],
                [None if i < 0 else partial(_Stored, self._file, self.plan.weights[i]) for i in op.weights],
                {**op.ints, **op.floats, **op.arrays},
                batch,
                len(op.outputs),
            )
            values.update(zip(op.outputs, results, strict=True))
            for i in {*op.inputs, *op.outputs}:
                if self._last_use[i] == at and self.plan.buffers[i].name not in self.plan.kept:
                    del values[i]
        self._file.check()
        return {self.plan.buffers[i].name: value for i, value in values.items()}


class _Text:
    """One text from its beginning, and the keys and values of its tokens: a `Batch` of the table."""

    def __init__(self, plan: Plan, tokens: npt.NDArray[np.int64], first: int) -> None:
        self.tokens = tokens  # [T]
        self.positions = np.arange(len(tokens))
        self.outputs = np.arange(first, len(tokens))
        self._shapes = plan.kv_layers
        self._layers: dict[int, tuple[Array, Array]] = {}

    def write(self, layer: int, k: Array, v: Array) -> None:
        n_head, dim_k, dim_v = self._shapes[layer]
        self._layers[layer] = k.reshape(-1, n_head, dim_k), v.reshape(-1, n_head, dim_v)

    def read(self, layer: int) -> tuple[Array, Array, Array]:
        return *self._layers[layer], self.positions[:, None] - self.positions


class _Stored:
    """A weight in its file. What of it is indexed, or made an array, is decoded: float64."""

    def __init__(self, file: File, weight: Weight, n_axes: int) -> None:
        self.shape = (weight.experts, weight.rows, weight.cols)[-n_axes:]
        self._data = np.asarray(file.tensors[weight.name].data).reshape(*self.shape[:-1], -1)
        self.weight = weight

    def __getitem__(self, index: Any) -> Doubles:
        chosen = self._data[index]
        flat = np.ascontiguousarray(chosen).reshape(-1)
        shape = (*chosen.shape[:-1], self.weight.cols)
        values: Array = native().dequantize(self.weight.type_id, flat, math.prod(shape))
        return values.astype(np.float64).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or np.float64, copy=False)
