"""Weights that move into huge pages while the model computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion._native import files
from clarion.errors import FileError, ParameterError
from clarion.host import native
from clarion.host.numa import thread_nodes
from clarion.residency import Copied, Mapped, Moving, Panels
from clarion.residency.space import AT_ONCE_BYTES, best_place

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


class Tensor:
    def __init__(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        self.data = data


class Program:
    """Takes moves, and makes them when it is told to."""

    def __init__(self) -> None:
        self.given: list[tuple[int, bytes]] = []
        self.made = 0

    def move_weight(self, index: int, data: np.ndarray[tuple[int], np.dtype[np.uint8]], panels: bool) -> None:
        assert not panels
        self.given.append((index, data.tobytes()))

    def moved(self) -> int:
        return self.made


def moving(sizes: dict[str, int]) -> tuple[Moving, dict[str, bytes]]:
    generator = np.random.default_rng(0)
    tensors = {name: Tensor(generator.integers(0, 256, n, np.uint8)) for name, n in sizes.items()}
    matrices = [not name.startswith("vector") for name in sizes]
    return Moving(Mapped(tensors), list(sizes), matrices, Panels(native(), []), [], thread_nodes(2)), {
        name: t.data.tobytes() for name, t in tensors.items()
    }


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("still waiting after 20 seconds")


def test_matrices_move_in_order_and_vectors_stay() -> None:
    mover, contents = moving({"a": 100, "vector": 64, "b": 5 << 20, "c": 1})
    program = Program()
    mover.start(program)
    wait_for(lambda: len(program.given) == 3)
    assert program.given == [(0, contents["a"]), (2, contents["b"]), (3, contents["c"])]
    assert threading.active_count() > 1  # it waits until nobody reads the originals
    program.made = 3
    mover.join()
    for name, content in contents.items():
        assert np.asarray(mover.data(name)).tobytes() == content


@dataclass(frozen=True)
class Matrix:
    name: str
    type_id: int
    rows: int
    cols: int
    experts: int
    n_bytes: int


def test_copies_are_panels() -> None:
    """Of every format that the module makes panels of, experts too; in any number of parts the same bytes."""
    core, draw = native(), np.random.default_rng(0)
    for type_id, name, block, size in files.formats():
        n_rows, cols, n_experts = 48, 4 * block, 2
        n_bytes = n_experts * n_rows * cols // block * size
        rows = draw.integers(0, 256, n_bytes, np.uint8)
        tensors = {name: Tensor(rows)}
        panels = Panels(core, [Matrix(name, type_id, n_rows, cols, n_experts, n_bytes)])
        assert (name in panels) == core.can_be_panels(type_id, n_rows)
        copies = [Copied(Mapped(tensors), [name], panels, [], thread_nodes(n)) for n in (1, 2, 5)]
        assert all(copied.is_panels(name) == (name in panels) for copied in copies)
        expected = rows
        if name in panels:
            expected = np.empty_like(rows)
            core.interleave(type_id, cols, rows, expected)
            assert sorted(expected.tolist()) == sorted(rows.tolist())
            assert expected.tobytes() != rows.tobytes()
        for copied in copies:
            assert copied.data(name).tobytes() == expected.tobytes()


def test_a_large_matrix_moves_in_pieces() -> None:
    core = native()
    type_id, block, size = next((i, b, s) for i, name, b, s in files.formats() if name == "Q8_0")
    n_rows, cols = 16 * 300, 32 * block
    n_bytes = n_rows * cols // block * size * 16
    matrix = Matrix("w", type_id, 16 * n_rows, cols, 1, n_bytes)
    rows = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8)
    mapped = Mapped({"w": Tensor(rows)})

    class Pieces(Program):
        def move_weight(
            self, index: int, data: np.ndarray[tuple[int], np.dtype[np.uint8]], panels: bool
        ) -> None:
            assert panels == core.can_be_panels(type_id, 16)
            self.given.append((index, b""))
            self.ends = [*getattr(self, "ends", []), data.nbytes]
            self.last = data

    mover, program = Moving(mapped, ["w"], [True], Panels(core, [matrix]), [], thread_nodes(2)), Pieces()
    mover.start(program)
    wait_for(lambda: program.given != [] and program.ends[-1] == n_bytes)
    program.made = len(program.ends)
    mover.join()
    assert len(program.ends) >= n_bytes / (32 << 20)
    pieces = np.diff([0, *program.ends])
    assert all(pieces > 0)
    assert max(pieces) <= 32 << 20
    assert all(end % (n_bytes // n_rows) == 0 for end in program.ends)
    expected = rows.copy()
    if core.can_be_panels(type_id, 16):
        core.interleave(type_id, cols, rows, expected)
    assert np.array_equal(program.last, expected)


def test_a_copy_that_fails_is_an_error() -> None:
    class Core:
        def can_be_panels(self, type_id: int, rows: int) -> bool:
            return True

        def interleave(self, type_id: int, cols: int, rows: object, panels: object) -> None:
            raise ValueError("no panels today")

    panels = Panels(Core(), [Matrix("a", 0, 16, 4, 1, 256)])
    with pytest.raises(ValueError, match="no panels today"):
        Copied(Mapped({"a": Tensor(np.zeros(256, np.uint8))}), ["a"], panels, [], thread_nodes(2))


def test_pause_and_stop() -> None:
    mover, _ = moving({"a": 16 << 20})
    mover.pause()
    program = Program()
    mover.start(program)
    time.sleep(0.1)
    assert program.given == []
    mover.resume()
    mover.pause()
    mover.stop()
    mover.resume()  # nothing follows the end
    mover.stop()
    assert len(program.given) <= 1


def test_copy_checks_sizes() -> None:
    gate = files.Gate()
    with pytest.raises(ValueError, match="the sizes differ"):
        files.copy(np.zeros(3, np.uint8), np.zeros(4, np.uint8), gate)
    target = np.zeros(4, np.uint8)
    gate.end()
    assert not files.copy(target, np.ones(4, np.uint8), gate)
    assert target.tolist() == [0, 0, 0, 0]


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
    assert best_place(AT_ONCE_BYTES, 1 << 20) == "copied"
    assert best_place(AT_ONCE_BYTES + 1, 1 << 30) == "moving"
    assert best_place(6 << 30, 10 << 30) == "mapped"
