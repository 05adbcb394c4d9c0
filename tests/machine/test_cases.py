"""Every operation of the table, on random shapes and values, against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from clarion._native.files import SlotStates
from clarion.plan.operation import Reads, Writes
from clarion.plan.operations import OPERATIONS
from clarion.plan.state import Latent, Recurrent, groups
from tests.machine.build import Batch, Builder
from tests.plan.cases import CASES, Drawn
from tests.plan.reference import Memory, Reference

SEEDS = 25


def rows_of(rng, n, width):
    return rng.standard_normal((n, width)).astype(np.float32)


def write(b, state, rng, n):
    """Something in the state, so that it can be read; the rows of the buffers."""
    if isinstance(state, Latent):
        name, widths = "latent_write", {"rows": state.dim}
    else:
        name, widths = "kv_write", {"k": state.n_head * state.dim_k, "v": state.n_head * state.dim_v}
    b.op(name, [b.buffer(key, width) for key, width in widths.items()], [], [], {"state": 0})
    return {key: rows_of(rng, n, width) for key, width in widths.items()}


def attend(b, state, rng, n):
    """What attention sees in the state: every position of the text alike; the rows of the query."""
    ints, floats = {"state": 0}, {"scale": 0.2}
    if isinstance(state, Latent):
        heads, dim = 2, state.dim
        ints |= {"n_head": heads, "dim": dim, "dim_v": state.dim_v}
    else:
        heads, dim = state.n_head, state.dim_k
        ints |= {"n_head": heads, "n_head_kv": heads, "head_dim": dim, "dim_v": state.dim_v}
    operands = [b.buffer("query", heads * dim)], [b.buffer("seen", heads * state.dim_v)]
    if isinstance(state, Latent):
        b.op("latent_attention", *operands, [], ints, floats)
    else:
        ints |= {"window": 0, "chunked": 0, "causal": 1}
        b.op("attention", *operands, [-1], ints, floats | {"cap": 0.0}, {"slopes": []})
    return {"query": rows_of(rng, n, heads * dim)}


def held(native, state):
    """The memory of a state, for one text."""
    if state is None:
        return None
    layers = groups([state])[0].layers
    return SlotStates(layers, 1, 0) if isinstance(state, Recurrent) else native.KvCache(layers, 2, 64, "f32")


def product(b, rng, encoded, out):
    """Seven products of an encoding, as that is read by nothing else."""
    width = b.spec["buffers"][encoded]["width"]
    # Q8_0 blocks: a scale and 32 integers. The scale, 1.0, is 0x3c00.
    n = 7 * width // 32
    blocks = np.concatenate([np.tile([0, 0x3C], (n, 1)), rng.integers(0, 256, (n, 32))], 1)
    data = blocks.astype(np.uint8).reshape(-1)
    weight = {"name": "q8_0", "format": 8, "rows": 7, "cols": width, "experts": 1, "data": data}
    b.spec["weights"].append(weight)
    b.op("linear", [encoded], [out], [len(b.spec["weights"]) - 1, -1])


def drawn(native, name, rng):
    """A program of the operation, and of what makes its effect seen: with the case, a batch, the rows that
    buffers are given, and the names of the results."""
    n = int(rng.integers(1, 41))
    wanted = rng.integers(0, n, int(rng.integers(1, n + 1)))
    entry, case = OPERATIONS[name], CASES[name](rng)
    b, given, state = Builder(native, n), {}, case.state
    if isinstance(entry.state, Reads):  # something must have been written
        given = write(b, state, rng, n)
    operation = Drawn(b, entry, case, rng, len(wanted))
    results = operation.add()
    given |= operation.given
    if isinstance(entry.state, Writes) and not isinstance(state, Recurrent):
        given |= attend(b, state, rng, n)
        results.append("seen")
    if entry.encodes:
        encoded = b.spec["ops"][-1]["outputs"][0]
        product(b, rng, encoded, b.buffer("product", 7, rows=b.spec["buffers"][encoded]["rows"]))
        results = ["product"]
    tokens = rng.integers(0, case.sizes.get("vocabulary", 1), n)
    batch = Batch(n, tokens=tokens, pages=[[1, 0]] if state else ((),), outputs=wanted)
    return b, case, batch, given, results


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_computes_its_definition(native, name):
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, len(name)])
        b, case, batch, given, results = drawn(native, name, rng)
        program, reference = b.program(int(rng.integers(1, 3))), Reference(b.spec)
        for key, rows in given.items():
            program.buffer(key)[: len(rows)] = rows
            reference.values[reference.index[key]] = (
                rows if rows.dtype == np.int32 else rows.astype(np.float64)
            )
        memory = held(native, case.state)
        assert batch.run(program, memory.native if isinstance(memory, SlotStates) else memory)
        kept = Memory([case.state]) if case.state else None
        reference.run(kept, batch.tokens, batch.positions, batch.sequences, batch.outputs)
        assert results
        for key in results:
            wanted = reference.buffer(key)
            found = program.buffer(key)[: len(wanted)]
            scale = max(1, np.abs(wanted).max(), *(np.abs(rows).max() for rows in given.values()))
            np.testing.assert_allclose(
                found, wanted, rtol=0, atol=case.tolerance * scale, err_msg=f"{name}, seed {seed}: {key}"
            )
