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
from clarion.plan.state import Latent, Paged, Recurrent

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
    """States of sequences, by their numbers in the plan: keys and values in pages, of (n_head, dim_k, dim_v)
    or of a `Paged`; rows in pages; what is recurrent, by sequence."""

    def __init__(self, states, pages, page_size=PAGE):
        self.page_size = page_size
        shapes = [Paged(*state) if isinstance(state, tuple) else state for state in states]
        self.of = [STATES[type(shape)](shape, (pages, page_size)) for shape in shapes]


class PagedMemory:
    def __init__(self, shape, pages):
        self.k = np.full((*pages, shape.n_head, shape.dim_k), np.nan)
        self.v = np.full((*pages, shape.n_head, shape.dim_v), np.nan)

    def during(self, run):
        return _Pages(run, self.k, self.v)


class LatentMemory:
    def __init__(self, shape, pages):
        self.rows = np.full((*pages, shape.dim), np.nan)

    def during(self, run):
        return _Pages(run, self.rows)


class RecurrentMemory:
    """The state of each sequence, and the position up to which it has come."""

    def __init__(self, shape, pages):
        self.size = shape.size
        self.held = {}

    def during(self, run):
        return _Recurrent(run, self)


STATES = {Paged: PagedMemory, Latent: LatentMemory, Recurrent: RecurrentMemory}


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
        self.states = [] if cache is None else [memory.during(self) for memory in cache.of]
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


class _Pages:
    """Pages of a state, as definitions read and write them for the batch of a run."""

    def __init__(self, run, *arrays):
        self.run, self.arrays = run, arrays

    def write(self, *rows):
        page, slot = self._places(self.run.sequences, self.run.positions)
        for array, new in zip(self.arrays, rows, strict=True):
            array[page, slot] = new.reshape(len(new), *array.shape[2:])

    def read(self):
        """Positions up to the last token's, of each sequence."""
        positions, sequences = self.run.positions, self.run.sequences
        lengths = {s: positions[sequences == s].max() + 1 for s in np.unique(sequences)}
        sequence = np.repeat(list(lengths), list(lengths.values()))
        position = np.concatenate([np.arange(n) for n in lengths.values()])
        page, slot = self._places(sequence, position)
        distance = positions[:, None] - position
        return *(array[page, slot] for array in self.arrays), distance, sequences[:, None] == sequence

    def _places(self, sequences, positions):
        """Page and slot of each position."""
        page_size = self.run.cache.page_size
        return self.run.pages[sequences, positions // page_size], positions % page_size


class _Recurrent:
    """A recurrent state: the tokens of a run continue, in order, what their sequences hold."""

    def __init__(self, run, memory):
        self.run, self.memory = run, memory

    def scan(self, xp, n_tokens, zero, step):
        assert zero.size == self.memory.size
        results = []
        for token in range(n_tokens):
            sequence, position = int(self.run.sequences[token]), int(self.run.positions[token])
            state, reached = (zero, 0) if position == 0 else self.memory.held[sequence]
            assert position == reached, (sequence, position, reached)
            state, result = step(state, token)
            self.memory.held[sequence] = (state, position + 1)
            results.append(result)
        return xp.stack(results)
