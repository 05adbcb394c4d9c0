"""A program in float64 numpy, by the definitions of the operation table: what every machine must compute.

`Reference(spec).run(...)` takes the same specification and the same batch as the native program. Encoded
buffers (`fast`, `high`) hold their values unrounded, so results are those of exact activations. Buffers share
memory as the specification says: writing one fills those that overlap it with NaN, which a wrong layout lets
reach the logits.
"""

from __future__ import annotations

from functools import partial

import gguf
import numpy as np

from clarion.plan import Target
from clarion.plan.operations import OPERATIONS

PAGE = 64


def row_bytes(kind, width):
    """Bytes of a row where there is no native module: room for values and one scale for each 32."""
    per_value = {"f32": 4, "i32": 4, "fast": 1, "high": 2, "bf16": 2}[kind]
    return -(-(width * per_value + (4 * -(-width // 32) if kind in ("fast", "high") else 0)) // 64) * 64


TARGET = Target(row_bytes=row_bytes)


def dequantize(weight):
    """The weight's values as float64: [experts, rows, cols]."""
    kind = gguf.GGMLQuantizationType(weight["format"])
    data = np.ascontiguousarray(weight["data"]).view(np.uint8)
    values = gguf.quants.dequantize(data.reshape(weight["experts"] * weight["rows"], -1), kind)
    return values.astype(np.float64).reshape(weight["experts"], weight["rows"], weight["cols"])


def with_axes(values, n):
    """Without leading axes of length 1, so that n are left."""
    return values.reshape(values.shape[-n:])


class Cache:
    """Keys and values of every layer (n_head, dim_k, dim_v), in pages."""

    def __init__(self, layers, pages, page_size=PAGE):
        self.page_size = page_size
        self.k = [np.full((pages, page_size, heads, dim), np.nan) for heads, dim, _ in layers]
        self.v = [np.full((pages, page_size, heads, dim), np.nan) for heads, _, dim in layers]


class Reference:
    def __init__(self, spec):
        self.spec = spec
        self.weights = [dequantize(weight) for weight in spec["weights"]]
        self.index = {buffer["name"]: i for i, buffer in enumerate(spec["buffers"])}
        self.values = [None] * len(spec["buffers"])
        ends = [b["offset"] + self._max_rows(b) * row_bytes(b["kind"], b["width"]) for b in spec["buffers"]]
        self.extents = [(b["offset"], end) for b, end in zip(spec["buffers"], ends, strict=True)]

    def run(self, cache, tokens, positions, sequences, pages, outputs):
        self.cache, self.pages = cache, np.atleast_2d(pages)
        self.tokens, self.positions, self.sequences, self.outputs = map(
            np.asarray, (tokens, positions, sequences, outputs)
        )
        self.states = [
            (_Paged if cache.v[layer].shape[-1] else _Latent)(self, layer)
            for layer in range(0 if cache is None else len(cache.k))
        ]
        for op in self.spec["ops"]:
            results = OPERATIONS[op["op"]].compute(
                np,
                [self.values[i] for i in op["inputs"]],
                [None if i < 0 else partial(with_axes, self.weights[i]) for i in op["weights"]],
                {**op["ints"], **op["floats"], **op["arrays"]},
                self,
                len(op["outputs"]),
            )
            for i, result in zip(op["outputs"], results, strict=True):
                self._write(i, result)

    def buffer(self, name):
        return self.values[self.index[name]]

    def _max_rows(self, buffer):
        tokens = self.spec["max_tokens"]
        most = {"tokens": tokens, "outputs": self.spec["max_outputs"], "batch": 1}
        return most[buffer["rows"]] * buffer["slots_per_token"]

    def _write(self, i, result):
        start, end = self.extents[i]
        for j, (other_start, other_end) in enumerate(self.extents):
            if j != i and start < other_end and other_start < end and self.values[j] is not None:
                self.values[j] = np.full(self.values[j].shape, np.nan)
        buffer = self.spec["buffers"][i]
        rows = {
            "tokens": len(self.tokens),
            "outputs": len(self.outputs),
            "batch": 1,
        }
        assert result.shape == (rows[buffer["rows"]] * buffer["slots_per_token"], buffer["width"]), (
            buffer["name"],
            result.shape,
        )
        self.values[i] = result


class _Paged:
    """One layer of the cache, as definitions read and write it for the batch of a run."""

    def __init__(self, run, layer):
        self.run, self.k, self.v = run, run.cache.k[layer], run.cache.v[layer]

    def write(self, k, v):
        page, slot = self._places(self.run.sequences, self.run.positions)
        self.k[page, slot] = k.reshape(len(k), *self.k.shape[2:])
        self.v[page, slot] = v.reshape(len(v), *self.v.shape[2:])

    def read(self):
        """Positions up to the last token's, of each sequence."""
        positions, sequences = self.run.positions, self.run.sequences
        lengths = {s: positions[sequences == s].max() + 1 for s in np.unique(sequences)}
        sequence = np.repeat(list(lengths), list(lengths.values()))
        position = np.concatenate([np.arange(n) for n in lengths.values()])
        page, slot = self._places(sequence, position)
        distance = positions[:, None] - position
        return self.k[page, slot], self.v[page, slot], distance, sequences[:, None] == sequence

    def _places(self, sequences, positions):
        """Page and slot of each position."""
        page_size = self.run.cache.page_size
        return self.run.pages[sequences, positions // page_size], positions % page_size


class _Latent(_Paged):
    """A layer of rows: of one head, and without values."""

    def write(self, rows):
        super().write(rows, rows[:, :0])

    def read(self):
        rows, _, distance, own = super().read()
        return rows[:, 0], distance, own
