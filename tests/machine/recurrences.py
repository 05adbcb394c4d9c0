"""Programs of one operation with a recurrent state, beside its definition in float64."""

from __future__ import annotations

import numpy as np

from clarion._native import files
from clarion.plan.operations import OPERATIONS
from tests.machine.build import Builder
from tests.plan.cases import CASES, Drawn
from tests.plan.reference import Memory, Reference

NAMES = [name for name, entry in OPERATIONS.items() if entry.module == "recurrent"]


class Recurrence:
    """One operation of random shape and weights, and the rows of texts of `n` tokens."""

    def __init__(self, name, seed, n):
        self.entry, self.n, self.seed = OPERATIONS[name], n, seed
        self.case = CASES[name](np.random.default_rng([seed, NAMES.index(name)]))
        self.shape = (self.case.state.size, self.case.state.log)

    def program(self, native, threads, **caches):
        """Each has the same weights, and room for four texts."""
        b = Builder(native, 4 * self.n, 0)
        drawn = Drawn(b, self.entry, self.case, np.random.default_rng(self.seed), 0)
        self.result = drawn.add()[0]
        self.spec = b.spec
        return native.Program(native.Machine(threads, **caches), b.spec)

    def inputs(self, text):
        """Rows of each input, [n, width]."""
        rng = np.random.default_rng([self.seed, text])
        width = {buffer["name"]: buffer["width"] for buffer in self.spec["buffers"]}
        return {
            operand.name: self.case.draw(rng, operand.name, self.n, width[operand.name])
            for operand in self.entry.inputs
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

    def expected(self, rows):
        """The definition on a whole text, in float64."""
        reference = Reference(self.spec)
        for name, values in rows.items():
            reference.values[reference.index[name]] = values.astype(np.float64)
        zeros = np.zeros(self.n, int)
        reference.run(Memory([self.case.state]), zeros, np.arange(self.n), zeros, zeros[:0])
        return reference.buffer(self.result)
