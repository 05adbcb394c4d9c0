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


class Memory:
    """What sequences keep of the states of a plan. Its machine knows no pages, and forgets nothing."""

    def __init__(self, states):
        self.states = list(states)
        self.kept = [{} for _ in self.states]  # of each: (sequence, position) → what was there


class Reference:
    def __init__(self, spec):
        self.spec = spec
        self.weights = [dequantize(weight) for weight in spec["weights"]]
        self.index = {buffer["name"]: i for i, buffer in enumerate(spec["buffers"])}
        self.values = [None] * len(spec["buffers"])
        ends = [b["offset"] + self._max_rows(b) * row_bytes(b["kind"], b["width"]) for b in spec["buffers"]]
        self.extents = [(b["offset"], end) for b, end in zip(spec["buffers"], ends, strict=True)]

    def run(self, memory, tokens, positions, sequences, outputs):
        """`memory`: of the states; None where the program has none."""
        self.tokens, self.positions, self.sequences, self.outputs = map(
            np.asarray, (tokens, positions, sequences, outputs)
        )
        pairs = [] if memory is None else zip(memory.states, memory.kept, strict=True)
        self.states = [_ARRAYS[type(state)](self, state, kept) for state, kept in pairs]
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


class _Positions:
    """Rows of every position, which a batch writes and reads."""

    def __init__(self, run, state, kept):
        self.run, self.state, self.kept = run, state, kept

    def put(self, rows):
        for sequence, position, row in zip(self.run.sequences, self.run.positions, rows, strict=True):
            self.kept[sequence, position] = row

    def get(self):
        """The rows of positions up to the last token's, of each sequence; and twice [T, P], by how many
        positions each lies before a token, and whether it is of the same sequence."""
        positions, sequences = self.run.positions, self.run.sequences
        lengths = {s: positions[sequences == s].max() + 1 for s in np.unique(sequences)}
        places = [(s, p) for s, length in lengths.items() for p in range(length)]
        sequence, position = np.array(places).T
        distance, own = positions[:, None] - position, sequences[:, None] == sequence
        return [self.kept[place] for place in places], distance, own


class _Paged(_Positions):
    def write(self, k, v):
        n_head = self.state.n_head
        self.put(list(zip(k.reshape(len(k), n_head, -1), v.reshape(len(v), n_head, -1), strict=True)))

    def read(self):
        rows, *seen = self.get()
        return np.array([k for k, _ in rows]), np.array([v for _, v in rows]), *seen


class _Latent(_Positions):
    def write(self, rows):
        self.put(rows)

    def read(self):
        rows, *seen = self.get()
        return np.array(rows), *seen


class _Recurrent:
    """The state behind every position."""

    def __init__(self, run, _, kept):
        self.run, self.kept = run, kept

    def scan(self, xp, n_tokens, zero, step):
        results = []
        for t in range(n_tokens):
            sequence, position = self.run.sequences[t], self.run.positions[t]
            state = self.kept[sequence, position - 1] if position else zero
            self.kept[sequence, position], result = step(state, t)
            results.append(result)
        return xp.stack(results)


_ARRAYS = {Paged: _Paged, Latent: _Latent, Recurrent: _Recurrent}
