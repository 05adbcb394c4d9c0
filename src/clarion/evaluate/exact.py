"""The same weights in float64 arithmetic: what every engine only approximates.

The interpreter takes a plan and computes one text from its beginning, all tokens at once. Nothing is rounded
on the way: encoded buffers hold their values, keys and values are kept as they are. Weights are the float32
values that the file's blocks stand for, decoded when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.devices import native
from clarion.gguf import File
from clarion.model import make_plan
from clarion.plan.observe import Observer
from clarion.plan.plan import OUTPUT, Op, Plan

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
        step = _Step(self, np.asarray(tokens, np.int64), first)
        values: dict[int, Array] = {}
        for at, op in enumerate(self.plan.ops):
            results = getattr(step, op.op)(op, [values[i] for i in op.inputs])
            if op.op == "norm":  # the same twice: f32 and encoded
                results = results * len(op.outputs)
            values.update(zip(op.outputs, results, strict=True))
            for i in {*op.inputs, *op.outputs}:
                if self._last_use[i] == at and self.plan.buffers[i].name not in self.plan.kept:
                    del values[i]
        self._file.check()
        return {self.plan.buffers[i].name: value for i, value in values.items()}

    def weight(self, index: int, rows: Array | None = None, expert: int = 0) -> Doubles:
        """A weight's values [rows, cols]: of one expert, and of some rows where that is asked for."""
        weight = self.plan.weights[index]
        data = np.asarray(self._file.tensors[weight.name].data)
        data = data.reshape(weight.experts, weight.rows, -1)[expert]  # u8 [rows, bytes]
        data = data if rows is None else data[rows]
        flat = np.ascontiguousarray(data).reshape(-1)
        n = len(data) * weight.cols
        values: Array = native().dequantize(weight.type_id, flat, n)
        return values.astype(np.float64).reshape(len(data), weight.cols)


class _Step:
    """The operations: the inputs' values in, the outputs' out. Parameters are those of the table."""

    def __init__(self, model: Exact, tokens: npt.NDArray[np.int64], first: int) -> None:
        self._model = model
        self._tokens = tokens  # [T]
        self._outputs = np.arange(first, len(tokens))
        self._positions = np.arange(len(tokens))
        self._cache: dict[int, tuple[Array, Array]] = {}  # by layer: k, v [T, H_kv, D]

    def embed(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [self._model.weight(op.weights[0], self._tokens) * op.floats["scale"]]

    def rope_table(self, op: Op, inputs: list[Array]) -> list[Array]:
        angles = self._positions[:, None] * np.asarray(op.arrays["inv_freq"])
        return [np.concatenate([np.cos(angles), np.sin(angles)], -1) * op.floats["magnitude"]]

    def norm(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [_rms_norm(inputs[0], op.floats["eps"]) * self._model.weight(op.weights[0])]

    def encode(self, op: Op, inputs: list[Array]) -> list[Array]:
        return inputs

    def linear(self, op: Op, inputs: list[Array]) -> list[Array]:
        n = len(op.outputs)
        results = [inputs[0] @ self._model.weight(i).T for i in op.weights[:n]]
        for y, i in zip(results, op.weights[n:], strict=True):
            if i >= 0:
                y += self._model.weight(i)
        return [results[0] + inputs[1]] if len(inputs) > 1 else results

    def rope(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [self._rotated(op.ints["n_head"], op.weights[0], op.ints, op.floats["eps"], *inputs)]

    def rope_kv(self, op: Op, inputs: list[Array]) -> list[Array]:
        q, k, v, table = inputs
        eps = op.floats["eps"]
        k = self._rotated(op.ints["n_head_kv"], op.weights[1], op.ints, eps, k, table)
        self._keep(op.ints["layer"], k, v)
        return [self._rotated(op.ints["n_head"], op.weights[0], op.ints, eps, q, table)]

    def kv_write(self, op: Op, inputs: list[Array]) -> list[Array]:
        self._keep(op.ints["layer"], *inputs)
        return []

    def attention(self, op: Op, inputs: list[Array]) -> list[Array]:
        n_head, n_head_kv, window = op.ints["n_head"], op.ints["n_head_kv"], op.ints["window"]
        keys, values = self._cache[op.ints["layer"]]
        distance = self._positions[:, None] - self._positions  # [T, T]
        hidden = (distance < 0) | (distance >= window if window else False)
        q = inputs[0].reshape(len(self._tokens), n_head, -1)
        out = np.empty_like(q)
        for h in range(n_head):
            g = h // (n_head // n_head_kv)
            scores = q[:, h] @ keys[:, g].T * op.floats["scale"]
            scores[hidden] = -np.inf
            out[:, h] = _softmax(scores) @ values[:, g]
        return [out.reshape(len(q), -1)]

    def silu(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [_silu(inputs[0])]

    def mul(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [inputs[0] * inputs[1]]

    def add(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [inputs[0] + inputs[1]]

    def gate(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [_silu(inputs[0]) * inputs[1]]

    def select(self, op: Op, inputs: list[Array]) -> list[Array]:
        return [inputs[0][self._outputs]]

    def route(self, op: Op, inputs: list[Array]) -> list[Array]:
        p = _softmax(inputs[0])  # [T, E]
        ids = np.argsort(-p, axis=-1, kind="stable")[:, : op.ints["k"]]
        w = np.take_along_axis(p, ids, -1)
        return [ids, w / w.sum(-1, keepdims=True) if op.ints["normalize"] else w]

    def expert_linear(self, op: Op, inputs: list[Array]) -> list[Array]:
        a, ids = inputs
        slots = ids.ravel()  # [S]
        a = a if len(a) == len(slots) else np.repeat(a, ids.shape[1], axis=0)
        results = [np.empty((len(slots), self._model.plan.weights[i].rows)) for i in op.weights]
        for expert in np.unique(slots):
            chosen = slots == expert
            for y, i in zip(results, op.weights, strict=True):
                y[chosen] = a[chosen] @ self._model.weight(i, expert=int(expert)).T
        return list(results)

    def expert_sum(self, op: Op, inputs: list[Array]) -> list[Array]:
        y, w = inputs[:2]
        x = (y.reshape(*w.shape, -1) * w[:, :, None]).sum(1)
        return [x + inputs[2] if len(inputs) > 2 else x]

    def _keep(self, layer: int, k: Array, v: Array) -> None:
        n_head_kv, dim_k, dim_v = self._model.plan.kv_layers[layer]
        self._cache[layer] = k.reshape(-1, n_head_kv, dim_k), v.reshape(-1, n_head_kv, dim_v)

    def _rotated(
        self, n_head: int, gain: int, ints: Mapping[str, int], eps: float, flat: Array, table: Array
    ) -> Array:
        """Heads, normalised where there is a gain, with their first n_rot elements turned."""
        n_rot = ints["n_rot"]
        half = n_rot // 2
        x = flat.reshape(len(flat), n_head, -1)
        if gain >= 0:
            x = _rms_norm(x, eps) * self._model.weight(gain)[0]
        cos, sin = table[:, None, :half], table[:, None, half:]
        neox = ints["neox"]
        first = slice(0, half) if neox else slice(0, n_rot, 2)
        second = slice(half, n_rot) if neox else slice(1, n_rot, 2)
        y = x.copy()
        y[..., first] = x[..., first] * cos - x[..., second] * sin
        y[..., second] = x[..., first] * sin + x[..., second] * cos
        return y.reshape(flat.shape)


def _rms_norm(x: Array, eps: float) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + eps))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp of what is far below zero is infinite, and the quotient zero
        return np.asarray(x / (1 + np.exp(-x)))
