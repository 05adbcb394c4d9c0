"""Plans on the native machine: near the reference, and the same bits whole or in steps, fused or not."""

from __future__ import annotations

import numpy as np
import pytest

from clarion import models, plan
from clarion.host import native
from clarion.plan.operations import OPERATIONS
from clarion.programs import host_target
from clarion.runtime.states.memory import StateMemory
from tests.models.files import NAMES, context, expected, golden, mapped, nmse
from tests.plan.toys import modules_of_operations

LIMITS = {"exact": 1e-11, "high": 1e-6, "fast": 2e-3}


@pytest.fixture(scope="module")
def machine():
    return native().Machine(2)


def logits(machine, name, ids, chunk=32, **options):
    """Logits of one sequence, its tokens given to the machine in chunks."""
    options = {"max_tokens": 32, "max_outputs": 32, "context": 128} | options
    p = plan.compile(models.build(*golden(name), context=context(name)).plan(), host_target(), **options)
    program = native().Program(machine, p.native_spec(mapped(name, p)))
    memory = StateMemory(native(), p, n_slots=1)
    states = memory.states()
    state = states.open([], reuse=False)
    found = []
    for start in range(0, len(ids), chunk):
        tokens = ids[start : start + chunk]
        here = np.arange(len(tokens), dtype=np.int32)
        assert state.reserve(len(tokens))
        assert program.run(memory.native, tokens, here + np.int32(start), 0 * here, states.tables, here)
        state.append(tokens.tolist())
        found.append(np.array(program.buffer("logits"))[: len(tokens)])
    return np.concatenate(found)


def test_the_machine_knows_the_operation_table():
    assert native().op_names() == list(OPERATIONS)
    assert modules_of_operations() == {name: entry.module for name, entry in OPERATIONS.items()}


@pytest.mark.parametrize("activations", LIMITS)
@pytest.mark.parametrize("name", NAMES)
def test_every_way_of_running_gives_the_same_bits(machine, name, activations):
    ids, wanted = expected(name)
    found = logits(machine, name, ids, activations=activations)
    assert nmse(found, wanted) <= LIMITS[activations]
    for fuse, chunk in ((False, 32), (True, 1), (True, 5), (False, 3)):
        again = logits(machine, name, ids, chunk, activations=activations, fuse=fuse)
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("name", ["llama-q8_0", "qwen3moe"])
def test_one_wanted_row_is_that_row_of_all(machine, name):
    """The last layer runs on the wanted rows alone; a row does not depend on the others."""
    ids, _ = expected(name)
    p = plan.compile(
        models.build(*golden(name), context=context(name)).plan(),
        host_target(),
        max_tokens=32,
        max_outputs=1,
        context=64,
    )
    program = native().Program(machine, p.native_spec(mapped(name, p)))
    memory = StateMemory(native(), p, n_slots=1)
    states = memory.states()
    assert states.open([], reuse=False).reserve(32)
    here = np.arange(32, dtype=np.int32)
    program.run(memory.native, ids, here, 0 * here, states.tables, here[-1:])
    np.testing.assert_array_equal(program.buffer("logits")[0], logits(machine, name, ids)[-1])
