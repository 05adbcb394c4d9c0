"""Small programs for tests: buffers laid out one behind the other, operations in the order they are added."""

from __future__ import annotations

import numpy as np

from tests.plan.reference import Reference


class Builder:
    """Collects a program's specification. `buffer` and `weight` return what operations name them by."""

    def __init__(self, native, max_tokens, max_outputs=None):
        self.native = native
        self.spec = {
            "arena_bytes": 0,
            "max_tokens": max_tokens,
            "max_outputs": max_tokens if max_outputs is None else max_outputs,
            "buffers": [],
            "weights": [],
            "ops": [],
            "states": [],
        }

    def buffer(self, name, width, kind="f32", rows="tokens", slots=1):
        buffers = self.spec["buffers"]
        offset = self.spec["arena_bytes"]
        buffers.append(
            {
                "name": name,
                "kind": kind,
                "rows": rows,
                "width": width,
                "offset": offset,
                "slots_per_token": slots,
            }
        )
        most = {"tokens": self.spec["max_tokens"], "outputs": self.spec["max_outputs"], "batch": 1}
        n = most[rows] * slots
        self.spec["arena_bytes"] += n * self.native.encoded_row_bytes(kind, width)
        return len(buffers) - 1

    def weight(self, x):
        """A float32 weight of one, two or three dimensions."""
        experts, rows, cols = (1, 1, 1, *x.shape)[-3:]
        data = np.ascontiguousarray(x, np.float32).view(np.uint8).reshape(-1)
        weights = self.spec["weights"]
        weights.append(
            {
                "name": f"w{len(weights)}",
                "format": 0,
                "rows": rows,
                "cols": cols,
                "experts": experts,
                "data": data,
            }
        )
        return len(weights) - 1

    def op(self, name, inputs, outputs, weights=(), ints=None, floats=None, arrays=None):
        """States that operations name are the layers of one cache."""
        n_states = 1 + (ints or {}).get("state", -1)
        self.spec["states"] += [(0, layer) for layer in range(len(self.spec["states"]), n_states)]
        self.spec["ops"].append(
            {
                "op": name,
                "inputs": list(inputs),
                "outputs": list(outputs),
                "weights": list(weights),
                "ints": ints or {},
                "floats": floats or {},
                "arrays": arrays or {},
            }
        )

    def program(self, threads=1):
        return self.native.Program(self.native.Machine(threads), self.spec)


class Batch:
    """n tokens: by default token 0, at positions 0, 1, ... of one sequence, with no output."""

    def __init__(self, n, tokens=None, positions=None, sequences=None, pages=((),), outputs=()):
        def ints(values):
            return np.ascontiguousarray(values, np.int32)

        self.tokens = np.zeros(n, np.int32) if tokens is None else ints(tokens)
        self.positions = np.arange(n, dtype=np.int32) if positions is None else ints(positions)
        self.sequences = np.zeros(n, np.int32) if sequences is None else ints(sequences)
        self.pages = ints(pages).reshape(len(pages), -1)
        self.outputs = ints(outputs)

    def run(self, program, cache=None):
        caches, tables = ([], []) if cache is None else ([cache], [self.pages])
        return program.run(caches, self.tokens, self.positions, self.sequences, tables, self.outputs)


def check(builder, batch, inputs, outputs, tolerance, threads=2):
    """One run against the float64 reference. inputs: name → rows; outputs: names. The tolerance is relative
    to the largest element, or to the inputs, which are of size 1."""
    program, reference = builder.program(threads), Reference(builder.spec)
    for name, rows in inputs.items():
        program.buffer(name)[: len(rows)] = rows
        whole = np.issubdtype(rows.dtype, np.integer)
        reference.values[reference.index[name]] = rows if whole else rows.astype(np.float64)
    assert batch.run(program)
    reference.run(None, batch.tokens, batch.positions, batch.sequences, batch.outputs)
    for name in outputs:
        expected = reference.buffer(name)
        found = program.buffer(name)[: len(expected)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))
