"""Programs of one operation with a recurrent state, beside its definition in float64."""

from __future__ import annotations

import numpy as np

from clarion._native import files
from clarion.plan.operations import OPERATIONS
from tests.machine.build import Builder
from tests.plan.cases import CASES, Drawn

NAMES = [name for name, entry in OPERATIONS.items() if entry.module == "recurrent"]


class States:
    """What definitions see of a recurrent state: that of each sequence of the batch."""

    def __init__(self):
        self.held = {}

    def at(self, sequences):
        self.sequences = sequences
        return self

    def scan(self, xp, n_tokens, zero, step):
        results = []
        for t in range(n_tokens):
            state = self.held.get(self.sequences[t], zero)
            self.held[self.sequences[t]], result = step(state, t)
            results.append(result)
        return xp.stack(results)


class Recurrence:
    """One operation of random shape, its weights, and rows of inputs for texts of `n` tokens.

    `inputs(text)` are the rows of a text, by name; they depend on the text's number alone.
    """

    def __init__(self, name, seed, n, case=None):
        rng = np.random.default_rng([seed, NAMES.index(name)])
        self.entry, self.n, self.seed = OPERATIONS[name], n, seed
        self.case = CASES[name](rng) if case is None else case
        self.shape = (self.case.state.size, self.case.state.log)
        self.weights = {}
        self.rng = rng

    def program(self, native, threads, **caches):
        """Each has the same weights, and room for four texts."""
        b = Builder(native, 4 * self.n, 0)
        drawn = Drawn(b, self.entry, self.case, np.random.default_rng(self.seed), 0)
        self.result = drawn.add()[0]
        b.spec["states"] = [(0, 0)]
        self.spec = b.spec
        return native.Program(native.Machine(threads, **caches), b.spec)

    def inputs(self, text):
        """Rows of each input, [n, width]; decays, and what multiplies them, are of the size that models have."""
        rng = np.random.default_rng([self.seed, text])
        return {
            name: self.case.draw(rng, name, self.n, self.spec["buffers"][i]["width"])
            for operand, i in zip(self.entry.inputs, self.spec["ops"][0]["inputs"], strict=True)
            for name in [operand.name]
        }

    def slots(self, n=1, snapshots=0):
        return files.SlotStates([self.shape], n, snapshots)

    def run(self, program, slots, pieces):
        """Runs pieces (slot, rows, first, last) of texts in one batch; the rows of the result."""
        counts = [last - first for _, _, first, last in pieces]
        for name in pieces[0][1]:
            rows = np.concatenate([rows[name][first:last] for _, rows, first, last in pieces])
            program.buffer(name)[: len(rows)] = rows
        positions = np.concatenate([np.arange(first, last, dtype=np.int32) for _, _, first, last in pieces])
        sequences = np.repeat(np.array([slot for slot, *_ in pieces], np.int32), counts)
        nothing = np.zeros(0, np.int32)
        table = np.zeros((slots.slots, 0), np.int32)
        assert program.run([slots.native], np.zeros_like(positions), positions, sequences, [table], nothing)
        return program.buffer(self.result)[: len(positions)].copy()

    def expected(self, rows, dtype=np.float64):
        """The definition on a whole text."""
        op = self.spec["ops"][0]
        weights = [
            None if i < 0 else np.frombuffer(self.spec["weights"][i]["data"], np.float32).astype(dtype)
            for i in op["weights"]
        ]
        shapes = [(self.spec["weights"][i]["rows"], self.spec["weights"][i]["cols"]) for i in op["weights"]]

        class Batch:
            states = [States().at(np.zeros(self.n, int))]

        return self.entry.compute(
            np,
            [rows[operand.name].astype(dtype) for operand in self.entry.inputs],
            [
                None
                if w is None
                else lambda axes, w=w, shape=shape: w.reshape(shape[-axes:] if axes == 2 else -1)
                for w, shape in zip(weights, shapes, strict=True)
            ],
            {**op["ints"], **op["floats"]},
            Batch,
            1,
        )[0]
