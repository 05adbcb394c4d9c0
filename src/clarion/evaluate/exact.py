"""The same weights in float64 arithmetic: what every engine only approximates.

A plan's operations are computed by their definitions (clarion/plan/operations.py), for one text from its
beginning, all tokens at once. Nothing is rounded on the way: keys and values are kept as they are. Weights
are the float32 values that the file's blocks stand for, decoded when they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.gguf import File
from clarion.host import native
from clarion.plan import Plan
from clarion.plan.interpret import Text, interpret
from clarion.plan.narrow import narrow
from clarion.plan.observe import Observer
from clarion.plan.sources import Sources
from clarion.plan.weight import Weight
from clarion.programs import make_plan

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class Exact:
    """A model file, computed in float64."""

    def __init__(self, file: File, observe: Observer | None = None, context: int | None = None) -> None:
        """The file stays open as long as this is in use. `observe`: as for `clarion.plan.compile`; `context`:
        as for `clarion.load`.

        Raises:
            UnsupportedError, ModelError: as `clarion.load`.
        """
        self._file = file
        self.plan: Plan = make_plan(file, context)
        nodes, outputs = self.plan.nodes(), self.plan.kept()
        self._nodes, observed = (narrow(nodes, outputs), []) if observe is None else observe(nodes)
        self._kept = [*outputs, *observed]
        self._sources = Sources(self.plan.weights, file.tensors)

    def logits(self, tokens: Sequence[int], first: int = 0) -> Doubles:
        """The logits after every token from `first` on: [T - first, n_vocab].

        Raises:
            FileError: the file changed while it was read.
        """
        return self.run(tokens, first)[self.plan.outputs[0].value]

    def run(self, tokens: Sequence[int], first: int = 0) -> dict[str, Doubles]:
        """The plan's outputs, and what is observed, by name; rows of outputs are those of the tokens from
        `first` on.

        Raises:
            FileError: the file changed while it was read.
        """
        text = Text(np, np.asarray(tokens, np.int64), first, self.plan.states)
        found = interpret(np, self._nodes, self._kept, self._stored, text)
        self._file.check()
        return found

    def _stored(self, weight: Weight, n_axes: int) -> _Stored:
        return _Stored(self._sources[weight.name].view, weight, n_axes)


class _Stored:
    """A weight where its file has it. What of it is indexed, or made an array, is decoded: float64."""

    def __init__(self, data: Any, weight: Weight, n_axes: int) -> None:
        self.shape = (weight.experts, weight.rows, weight.cols)[-n_axes:]
        self._data = np.asarray(data).reshape(*self.shape[:-1], -1)
        self.weight = weight

    def __getitem__(self, index: Any) -> Doubles:
        chosen = self._data[index]
        flat = np.ascontiguousarray(chosen).reshape(-1)
        shape = (*chosen.shape[:-1], self.weight.cols)
        values: Array = native().dequantize(self.weight.type_id, flat, math.prod(shape))
        return values.astype(np.float64).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or np.float64, copy=False)
