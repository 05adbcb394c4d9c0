"""Every policy says what the file says, whatever it does; one made up here brings weights on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion._native import files
from clarion.host.numa import thread_nodes
from clarion.programs import make_program, open_file
from clarion.residency import Copied, Mapped, Moving, Origin, Policy, Replaced, Store
from clarion.residency.store import Tensor, Unit
from clarion.runtime.executor import Executor
from tests.residency.weights import Matrix, Swapped, matrix, rows_of, tensors_of

shapes = st.tuples(
    st.sampled_from([1, 2, 7, 16, 32, 48, 160]), st.integers(1, 40), st.integers(0, 1), st.integers(1, 3)
)


def showing(policy: Policy) -> dict[str, Unit]:
    """The units that the policy will fill."""
    found: dict[str, Unit] = {}
    fill = policy.fill

    def look(store: files.Store, units: Mapping[str, Unit]) -> None:
        found.update(units)
        fill(store, units)

    policy.fill = look  # type: ignore[method-assign]
    return found


@given(
    st.lists(shapes, min_size=1, max_size=5),
    st.sampled_from(["mapped", "copied", "moving", "replaced"]),
    st.integers(1, 5),
    st.sampled_from([1, 500, 1 << 20]),
    st.lists(st.booleans(), max_size=4),
)
def test_weights_are_those_of_the_file(
    shapes: list[tuple[int, int, int, int]], how: str, threads: int, extent_bytes: int, urgent: list[bool]
) -> None:
    weights = [
        matrix(str(i), rows, row_bytes, type_id, experts=experts)
        for i, (rows, row_bytes, type_id, experts) in enumerate(shapes)
    ]
    tensors = tensors_of(weights)
    origin = Origin(Swapped(), tensors, [tuple(w.name for w in weights[:2])], thread_nodes(threads))
    policy: Policy = {
        "mapped": lambda: Mapped(tensors),
        "copied": lambda: Copied(origin),
        "moving": lambda: Moving(origin),
        "replaced": lambda: Replaced(tensors),
    }[how]()
    units = showing(policy)
    store = Store(weights, policy, extent_bytes=extent_bytes)

    def right(weights: list[Matrix], of: Mapping[str, Any]) -> bool:
        return all(rows_of(units[weight.name]) == of[weight.name].data.tobytes() for weight in weights)

    assert right(weights, tensors)
    store.start()
    for kind in urgent:
        with store.native.run(kind):
            store.before_run()
            assert right(weights, tensors)
    if isinstance(policy, Replaced):
        others = tensors_of(weights, seed=1)
        some = [weight for weight in weights[::2] if weight.rows * weight.experts > 1]
        policy.use({weight.name: others[weight.name].data for weight in some})
        assert right(some, others)
        assert right([weight for weight in weights if weight not in some], tensors)
        policy.use({})
    store.settle()
    assert right(weights, tensors)
    for weight in weights:
        moves = how == "copied" or (how == "moving" and weight.rows > 1)
        for i in range(len(units[weight.name].extents)):
            place = units[weight.name].at(i)
            assert place is not None
            data = tensors[weight.name].data
            inside = data.ctypes.data <= place[0] < data.ctypes.data + data.nbytes
            assert inside != moves
            assert place[1] == (moves and weight.type_id == 1 and weight.rows % 16 == 0)
    store.close()


class OnDemand(Policy):
    """Matrices come from the file before each run, and go whenever somebody asks."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._copies: dict[tuple[str, int], bytearray] = {}

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        self._units = units
        for name, unit in units.items():
            if unit.weight.rows == 1:
                unit.place_all(self._tensors[name].view)

    def before_run(self) -> None:
        for name, unit in self._units.items():
            for i, extent in enumerate(unit.extents):
                if unit.at(i) is None:
                    original = memoryview(self._tensors[name].view)
                    self._copies[name, i] = bytearray(original[extent])
                    unit.place(i, memoryview(self._copies[name, i]))

    def drop(self) -> int:
        """How many extents have gone; their memory is overwritten."""
        gone = [(name, i) for name, i in self._copies if self._units[name].evict(i)]
        for key in gone:
            copy = self._copies.pop(key)
            copy[:] = bytes([255] * len(copy))
        return len(gone)


def test_weights_that_come_on_demand() -> None:
    tokens = np.random.default_rng(0).integers(0, 4096, 20).tolist()
    with open_file() as file:
        program = make_program(file, context=64, batch=32, outputs=32)
        mapped = Store(program.weights, Mapped(file.tensors))
        wanted = Executor(program, mapped, threads=1).logits(tokens)
        policy = OnDemand(file.tensors)
        store = Store(program.weights, policy, extent_bytes=1 << 15)
        executor = Executor(program, store, threads=2)
        for _ in range(2):
            np.testing.assert_array_equal(executor.logits(tokens), wanted)
            assert policy.drop() > len(program.ops)
        before_run, policy.before_run = policy.before_run, lambda: None  # type: ignore[method-assign]
        with pytest.raises(ValueError, match=r"weight 'token_embd.weight': row 0 .* not resident"):
            executor.logits(tokens)
        before_run()
        np.testing.assert_array_equal(executor.logits(tokens), wanted)
        with store.native.run():
            assert policy.drop() == 0
