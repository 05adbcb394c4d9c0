"""Weights that move into huge pages while the model computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clarion
from clarion._native import files
from clarion.errors import FileError, ParameterError
from clarion.host import native
from clarion.host.numa import thread_nodes
from clarion.residency import Copied, Moving, Origin, Store, moving
from clarion.residency.choice import AT_ONCE_BYTES, best_policy
from clarion.residency.store import Unit
from tests.residency.weights import Rows, bytes_of, matrix, tensors_of

PROMPT = "Once upon a time there was a king"


def test_the_text_is_the_same_wherever_weights_are() -> None:
    texts = []
    for weights in ("mapped", "copied", "moving", "auto"):
        with clarion.load(context=128, weights=weights) as model:
            texts.append(model.generate(PROMPT, max_tokens=60, greedy=True).tokens)
            model.settle()
            texts.append(model.generate(PROMPT, max_tokens=60, greedy=True).tokens)
    assert all(text == texts[0] for text in texts)
    with pytest.raises(ParameterError, match="weights: found 'elsewhere'"):
        clarion.load(weights="elsewhere")


class Looking(Moving):
    """Moves, and shows its units."""

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        self.units = units
        super().fill(store, units)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("still waiting after 20 seconds")


def test_matrices_move_and_vectors_stay() -> None:
    weights = [
        matrix("a", 4, 25),
        matrix("vector", 1, 64),
        matrix("b", 16, 5 << 16),
        matrix("c", 2, 1),
    ]
    tensors = tensors_of(weights)
    policy = Looking(Origin(Rows(), tensors, [], thread_nodes(2)))
    store = Store(weights, policy)
    before = {name: unit.at(0) for name, unit in policy.units.items()}
    assert before == {name: (tensor.data.ctypes.data, False) for name, tensor in tensors.items()}
    store.start()
    store.settle()
    for name, unit in policy.units.items():
        assert (unit.at(0) == before[name]) == (name == "vector")
        assert bytes_of(unit) == tensors[name].data.tobytes()


def test_originals_are_released_when_no_run_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [matrix("a", 4, 25), matrix("b", 4, 25)]
    tensors = tensors_of(weights)
    released: list[int] = []

    class Files:
        """The native module, but for what releases."""

        def __getattr__(self, name: str) -> object:
            return getattr(files, name)

        def release(self, original: memoryview) -> None:
            released.append(np.asarray(original).ctypes.data)

    monkeypatch.setattr(moving, "files", Files())
    policy = Looking(Origin(Rows(), tensors, [], thread_nodes(1)))
    store = Store(weights, policy)
    with store.native.run():
        store.start()
        wait_for(lambda: policy.units["b"].at(0) != (tensors["b"].data.ctypes.data, False))
        time.sleep(0.05)
        assert released == []
    store.settle()
    assert released == [tensors[name].data.ctypes.data for name in "ab"]


def test_copies_are_panels() -> None:
    """Of every format that the module makes panels of, experts too; in any number of parts the same bytes."""
    module = native()
    for type_id, name, block, size in files.formats():
        weight = matrix(name, 48, 4 * size, type_id, 4 * block, experts=2)
        tensors = tensors_of([weight])
        rows = tensors[name].data
        expected = rows
        panels = module.can_be_panels(type_id, weight.rows)
        if panels:
            expected = np.empty_like(rows)
            module.interleave(type_id, weight.cols, rows, expected)
            assert sorted(expected.tolist()) == sorted(rows.tolist())
            assert expected.tobytes() != rows.tobytes()
        for n in (1, 2, 5):
            for extent_bytes in (1, 1 << 20):
                found = {}

                class Copying(Copied):
                    def fill(self, store: files.Store, units: Mapping[str, Unit], found: Any = found) -> None:
                        super().fill(store, units)
                        found.update(units)

                origin = Origin(module, tensors, [], thread_nodes(n))
                store = Store([weight], Copying(origin), extent_bytes=extent_bytes)
                unit = found[name]
                assert len(unit.extents) == (6 if extent_bytes == 1 else 2)
                assert all(unit.at(i)[1] == panels for i in range(len(unit.extents)))
                assert bytes_of(unit) == expected.tobytes()
                del store


def test_a_large_matrix_moves_in_extents() -> None:
    module = native()
    type_id, block, size = next((i, b, s) for i, name, b, s in files.formats() if name == "Q8_0")
    weight = matrix("w", 16 * 16 * 300, 32 * size, type_id, 32 * block)
    tensors = tensors_of([weight])
    policy = Looking(Origin(module, tensors, [], thread_nodes(2)))
    store = Store([weight], policy)
    unit = policy.units["w"]
    sizes = [extent.stop - extent.start for extent in unit.extents]
    assert len(sizes) >= weight.n_bytes / (32 << 20)
    assert max(sizes) <= 32 << 20
    assert all(n % (16 * 32 * size) == 0 for n in sizes)
    store.start()
    store.settle()
    expected = tensors["w"].data.copy()
    if module.can_be_panels(type_id, 16):
        module.interleave(type_id, weight.cols, tensors["w"].data, expected)
    assert bytes_of(unit) == expected.tobytes()


def test_a_copy_that_fails_is_an_error() -> None:
    class Core:
        def can_be_panels(self, type_id: int, rows: int) -> bool:
            return True

        def interleave(self, type_id: int, cols: int, rows: object, panels: object) -> None:
            raise ValueError("no panels today")

    weight = matrix("a", 16, 16, cols=4)
    with pytest.raises(ValueError, match="no panels today"):
        Store([weight], Copied(Origin(Core(), tensors_of([weight]), [], thread_nodes(2))))


def test_nothing_moves_while_an_urgent_run_is_inside() -> None:
    weights = [matrix("a", 16, 1 << 20)]
    policy = Looking(Origin(Rows(), tensors_of(weights), [], thread_nodes(2)))
    store = Store(weights, policy)
    before = policy.units["a"].at(0)
    with store.native.run(urgent=True):
        store.start()
        time.sleep(0.1)
        assert policy.units["a"].at(0) == before
    store.settle()
    assert policy.units["a"].at(0) != before


def test_closing_ends_what_moves() -> None:
    weights = [matrix("a", 16, 1 << 20)]
    policy = Looking(Origin(Rows(), tensors_of(weights), [], thread_nodes(2)))
    store = Store(weights, policy)
    unit = policy.units["a"]
    before = unit.at(0)
    with store.native.run(urgent=True):
        store.start()
        store.close()
        store.close()
    assert unit.at(0) == before
    store = Store(weights, policy)
    store.close()  # not started


def test_copy_checks_sizes() -> None:
    store = files.Store()
    with pytest.raises(ValueError, match="the sizes differ"):
        files.copy(bytearray(3), bytes(4), store)
    target = bytearray(4)
    store.end()
    assert not files.copy(target, bytes([1] * 4), store)
    assert target == bytes(4)


def test_a_file_truncated_while_weights_move(tmp_path: Path) -> None:
    with clarion.load(context=64) as built_in:
        path = tmp_path / "model.gguf"
        shutil.copy(built_in.path, path)
    with clarion.load(path, context=64, weights="moving") as model:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(FileError):
            model.generate(PROMPT, max_tokens=3)
        model.settle()
        with pytest.raises(FileError):
            model.generate(PROMPT, max_tokens=3)


def test_pages_of_the_mapping_are_released(tmp_path: Path) -> None:
    """Measured in a process of its own, where nothing else maps files."""
    script = """
import clarion, sys
def mapped():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))
with clarion.load(context=64, weights=sys.argv[1]) as model:
    model.generate("Once upon a time", max_tokens=3)
    model.settle()
    print(mapped())
"""
    used = [
        int(subprocess.check_output([sys.executable, "-c", script, weights]))
        for weights in ("mapped", "moving")
    ]
    with clarion.load(context=64) as model:
        matrices = sum(weight.n_bytes for weight in model.program.weights if weight.rows > 1)
    assert used[0] - used[1] > 0.8 * matrices


def test_where_weights_are_best() -> None:
    assert best_policy(AT_ONCE_BYTES, 1 << 20) == "copied"
    assert best_policy(AT_ONCE_BYTES + 1, 1 << 30) == "moving"
    assert best_policy(6 << 30, 10 << 30) == "mapped"
