"""Threads and weights on several memory nodes: real threads and masks, on nodes that are made up.

Where pages then lie is the system's doing: a page lies on the node of the processor that first writes to it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clarion
from clarion._native import files
from clarion.host import native, numa
from clarion.host.hierarchy import Node, hierarchy
from clarion.residency import Copied, Moving, Origin, Policy, Store, copied, copying, moving
from clarion.residency.shares import shares
from clarion.residency.store import Unit
from clarion.runtime import machine as shared
from tests.residency.weights import Rows, bytes_of, matrix, tensors_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from queue_items import SHAPES, Matrix, Tiling, items_per_block, program_of, shared_out

PROMPT = "Once upon a time there was a king"


def machine(*nodes: Node) -> Callable[[], object]:
    processors = frozenset[int]().union(*(node.processors for node in nodes))
    return lambda: replace(hierarchy(), processors=processors, nodes=nodes)


def two_nodes(monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    """This machine as if half of its processors were near to other memory."""
    usable = sorted(hierarchy().processors)
    if len(usable) < 2 or not hasattr(os, "sched_setaffinity"):
        pytest.skip("needs two processors, and a system that keeps threads on them")
    half = len(usable) // 2
    two = Node(0, frozenset(usable[:half]), True), Node(1, frozenset(usable[half:]), True)
    monkeypatch.setattr(numa, "hierarchy", machine(*two))
    monkeypatch.setattr(numa, "cpu_quota", lambda: None)
    # Not the pool of a model that an earlier test left open, whose threads were placed when it was made.
    monkeypatch.setattr(shared, "_machines", weakref.WeakValueDictionary())
    return two


def affinities() -> dict[int, frozenset[int]]:
    """The processors of each thread of this process, those that end meanwhile left out."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[int(task.name)] = frozenset(os.sched_getaffinity(int(task.name)))
        except ProcessLookupError:
            continue
    return found


# ---- which thread is on which node


@given(st.integers(1, 64), st.lists(st.integers(1, 32), min_size=1, max_size=8))
def test_nodes_have_threads_in_proportion(threads: int, sizes: list[int]) -> None:
    nodes = []
    for i, size in enumerate(sizes):
        first = sum(sizes[:i])
        nodes.append(Node(i, frozenset(range(first, first + size)), True))
    found = numa.thread_nodes(threads, machine(*nodes)())
    assert len(found) == threads
    assert list(found) == sorted(found, key=lambda node: node.number)  # neighbours beside each other
    for node in nodes:
        fair = threads * len(node.processors) / sum(sizes)
        assert abs(found.count(node) - fair) < 1


def test_threads_stay_only_where_nobody_else_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = Node(0, frozenset(range(8)), True), Node(1, frozenset(range(8, 16)), True)
    two = machine(low, high)()
    monkeypatch.setattr(numa, "cpu_quota", lambda: None)
    assert numa.free_because(16, two) == ""
    assert numa.free_because(2, two) == ""
    assert numa.free_because(1, two) == "there are fewer than nodes"
    assert numa.free_because(8, machine(low)()) == "there is one"
    part = machine(low, replace(high, whole=False))()
    assert numa.free_because(16, part) == "the affinity mask has a part of a node"
    monkeypatch.setattr(numa, "cpu_quota", lambda: 15.5)
    assert numa.free_because(15, two) == "the control group has a quota"
    monkeypatch.setattr(numa, "cpu_quota", lambda: 16.0)
    assert numa.free_because(16, two) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's masks")
def test_masks() -> None:
    nodes = [Node(0, frozenset({0, 2}), True), Node(1, frozenset({1, 64, 130}), True)]
    words = np.frombuffer(numa.masks(nodes), np.uint)
    assert words.tolist() == [5, 0, 0, 2, 1, 4]


def test_one_node_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    if len(hierarchy().nodes) > 1:
        pytest.skip("this machine has several nodes")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("bound"), raising=False)
    before = set(affinities().values()) if sys.platform == "linux" else set()
    with clarion.load(context=64, threads=2, weights="copied") as model:
        model.generate(PROMPT, max_tokens=3)
        if sys.platform == "linux":
            assert set(affinities().values()) == before


# ---- threads


def test_workers_stay_on_their_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    two = two_nodes(monkeypatch)
    everywhere = frozenset(os.sched_getaffinity(0))
    before = set(affinities())
    pool = native().Machine(4, processors=numa.masks(numa.thread_nodes(4)))
    workers = {task: mask for task, mask in affinities().items() if task not in before}
    assert [workers[task] for task in sorted(workers)] == [
        two[0].processors,
        two[1].processors,
        two[1].processors,
    ]
    assert frozenset(os.sched_getaffinity(0)) == everywhere  # the caller's thread is the caller's affair
    del pool


def test_four_nodes_have_masks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes in turns, as systems number processors: 0, 4, 8 ... are near to the first."""
    nodes = [Node(i, frozenset(range(i, 128, 4)), True) for i in range(4)]
    four = machine(*nodes)()
    monkeypatch.setattr(numa, "cpu_quota", lambda: None)
    assert numa.free_because(128, four) == ""
    assert numa.free_because(3, four) == "there are fewer than nodes"
    for threads in (4, 6, 64, 128):
        found = numa.thread_nodes(threads, four)
        if sys.platform == "linux":
            words = np.frombuffer(numa.masks(found), np.uint64).reshape(threads, 2)
            for node, mask in zip(found, words, strict=True):
                bits = {64 * i + b for i, word in enumerate(mask) for b in range(64) if int(word) >> b & 1}
                assert bits == node.processors


def test_a_model_on_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    with clarion.load(context=128, threads=2, weights="mapped") as model:
        texts.append(model.generate(PROMPT, max_tokens=20, greedy=True).tokens)
    two = two_nodes(monkeypatch)
    everywhere = frozenset(os.sched_getaffinity(0))
    for weights in ("copied", "moving"):
        with clarion.load(context=128, threads=2, weights=weights) as model:
            model.settle()
            texts.append(model.generate(PROMPT, max_tokens=20, greedy=True).tokens)
            # The engine's and a worker's; all others are anywhere. Threads that copied are over, but may be
            # listed for a moment more, and a listing may miss a thread while another one ends.
            for _ in range(1000):
                masks = [mask for mask in affinities().values() if mask != everywhere]
                if len(masks) == len(two):
                    break
                time.sleep(0.01)
            assert sorted(masks, key=sorted) == [node.processors for node in two]
        assert frozenset(os.sched_getaffinity(0)) == everywhere
    assert texts[0] == texts[1] == texts[2]


# ---- weights

sizes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000), min_size=1)


@given(sizes, st.integers(1, 9), st.data())
def test_every_byte_has_one_reader(sizes: dict[str, int], threads: int, data: st.DataObject) -> None:
    names = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3, unique=True)
    together = data.draw(st.lists(names, max_size=3))
    found = shares(sizes, together, threads, lambda name: 1)
    assert found.keys() == sizes.keys()
    for name, parts in found.items():
        assert len(parts) == threads
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == sizes[name]
        assert all(part.start <= part.stop for part in parts)


def test_what_is_read_together_is_shared_out_together() -> None:
    sizes = {"q": 400, "k": 100, "v": 100, "o": 600, "embed": 7}
    assert shares(sizes, [("q", "k", "v"), ("o",)], 2, lambda name: 1) == {
        "q": (slice(0, 300), slice(300, 400)),
        "k": (slice(0, 0), slice(0, 100)),
        "v": (slice(0, 0), slice(0, 100)),
        "o": (slice(0, 300), slice(300, 600)),
        "embed": (slice(0, 3), slice(3, 7)),
    }


def test_operations_cut_their_weights_as_shares_do() -> None:
    """The items of native/kernels/linear.cpp: lane l of n begins at item items * l / n, and an item is the
    panels that begin in its part of the bytes."""
    with clarion.load(context=64) as model:
        program = model.program
    weights = {weight.name: weight for weight in program.weights}
    assert any(len(group) > 1 for group in program.read_together)
    threads, item_bytes = 3, 1 << 16
    sizes = {name: weight.n_bytes for name, weight in weights.items()}
    panel = {name: 16 * weight.n_bytes // weight.rows for name, weight in weights.items()}
    found = shares(sizes, program.read_together, threads, panel.__getitem__)
    for group in program.read_together:
        total, begin = sum(sizes[name] for name in group), 0
        items = threads * (total // (threads * item_bytes) + 1)
        for name in group:
            for t, part in enumerate(found[name]):
                first, last = (total * (items * i // threads) // items - begin for i in (t, t + 1))
                ends = [min(max(-(-at // panel[name]), 0) * panel[name], sizes[name]) for at in (first, last)]
                assert [part.start, part.stop] == ends
            begin += sizes[name]


@pytest.mark.parametrize(("threads", "nodes"), [(64, 2), (128, 4), (24, 4), (6, 4)])
@pytest.mark.parametrize("shape", ["1B", "7B"])
def test_what_a_node_reads_lies_there(shape: str, threads: int, nodes: int) -> None:
    """Of products of one token, all but a panel at each border between nodes; as many items as threads."""
    program = program_of(SHAPES[shape])
    places = [Node(i, frozenset({i}), True) for i in range(nodes)]
    near = [node.number for node in numa.thread_nodes(threads, machine(*places)())]
    weights = {weight.name: weight for weight in program.weights}
    sizes = {name: weight.n_bytes for name, weight in weights.items()}
    panel = {name: 16 * weight.n_bytes // weight.rows for name, weight in weights.items()}
    found = shares(sizes, program.read_together, threads, panel.__getitem__)
    for group in program.read_together:
        matrices = [Matrix(sizes[n] // panel[n], panel[n], 16 * weights[n].cols) for n in group]
        items = items_per_block(matrices, 1, threads, Tiling())
        assert items >= threads, group
        read = [0] * threads
        for i, (n_bytes, _) in enumerate(shared_out(matrices, items)):
            lane = ((i + 1) * threads - 1) // items  # the one whose items begin at items * lane / threads
            assert items * lane // threads <= i < items * (lane + 1) // threads
            read[lane] += n_bytes
        lies = [sum(found[name][t].stop - found[name][t].start for name in group) for t in range(threads)]
        for node in range(nodes):
            mine = [t for t in range(threads) if near[t] == node]
            assert mine == list(range(mine[0], mine[-1] + 1))  # so bytes that lie there are beside each other
            for end in (mine[0], mine[-1] + 1):
                assert abs(sum(read[:end]) - sum(lies[:end])) <= max(panel[name] for name in group)


@pytest.mark.parametrize("kind", [Copied, Moving])
def test_each_of_four_nodes_copies_its_part(
    kind: type[Copied | Moving], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte once, by a thread on the node of the thread that will read it."""
    weights = [matrix("a", 64, 60), matrix("b", 32, 20), matrix("c", 16 * 9, 7)]
    tensors = tensors_of(weights)
    nodes = [Node(i, frozenset({i}), True) for i in range(4)]
    of_threads = numa.thread_nodes(10, machine(*nodes)())
    near: dict[int, Node] = {}  # where each thread is
    pieces: list[tuple[int, int, int]] = []  # node, address, bytes
    for module in (copied, moving):
        monkeypatch.setattr(module, "stay_near", lambda node: near.__setitem__(threading.get_ident(), node))

    class Noting:
        """Panels as they are made, and who makes them."""

        def can_be_panels(self, type_id: int, rows: int) -> bool:
            return rows % 16 == 0

        def interleave(self, type_id: int, cols: int, rows: memoryview, panels: memoryview) -> None:
            pieces.append((near[threading.get_ident()].number, np.asarray(panels).ctypes.data, panels.nbytes))
            panels[:] = rows

    found: dict[str, Unit] = {}

    class Looking(kind):  # type: ignore[misc, valid-type]
        def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
            found.update(units)
            super().fill(store, units)

    store = Store(weights, Looking(Origin(Noting(), tensors, [("a", "b")], of_threads)), extent_bytes=1)
    store.start()
    store.settle()
    sizes = {weight.name: weight.n_bytes for weight in weights}
    expected = shares(sizes, [("a", "b")], len(of_threads), lambda name: found[name].step)
    for name, unit in found.items():
        start = unit.at(0)[0]  # type: ignore[index]
        mine = sorted((at - start, n, node) for node, at, n in pieces if start <= at < start + sizes[name])
        ends = [at + n for at, n, _ in mine]
        assert [at for at, _, _ in mine] == [0, *ends[:-1]]
        assert ends[-1] == sizes[name]
        for at, n, node in mine:
            readers = [t for t, part in enumerate(expected[name]) if part.start < at + n and at < part.stop]
            assert {of_threads[t].number for t in readers} == {node}
        assert bytes_of(unit) == tensors[name].data.tobytes()


@pytest.mark.parametrize("kind", [Copied, Moving])
def test_each_node_copies_what_its_threads_read(
    kind: type[Copied | Moving], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [matrix("a", 15, 60), matrix("b", 15, 20), matrix("c", 32, 2)]
    tensors = tensors_of(weights)
    two = Node(0, frozenset({0}), True), Node(1, frozenset({1}), True)
    near: dict[str, Node] = {}  # where each thread is
    pieces: list[tuple[int, int, int]] = []  # node, address, bytes

    class Files:
        """The native module, but for what copies."""

        def __getattr__(self, name: str) -> object:
            return getattr(files, name)

        def copy(self, to: memoryview, original: memoryview, store: files.Store) -> bool:
            node = near[threading.current_thread().name].number
            pieces.append((node, np.asarray(to).ctypes.data, to.nbytes))
            return files.copy(to, original, store)

    monkeypatch.setattr(copying, "files", Files())
    for module in (copied, moving):
        monkeypatch.setattr(
            module, "stay_near", lambda node: near.__setitem__(threading.current_thread().name, node)
        )
    found: dict[str, Unit] = {}

    class Looking(kind):  # type: ignore[misc, valid-type]
        def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
            found.update(units)
            super().fill(store, units)

    policy: Policy = Looking(Origin(Rows(), tensors, [("a", "b")], (two[0], two[0], two[1], two[1])))
    store = Store(weights, policy, extent_bytes=1)
    store.start()
    store.settle()
    for name, expected in (("a", [600, 300]), ("b", [0, 300]), ("c", [32, 32])):
        places = [found[name].at(i) for i in range(len(found[name].extents))]
        assert len(places) == (2 if name == "c" else 1)  # panels of 16 rows, or all
        start = places[0][0]
        inside = [p for p in pieces if start <= p[1] and p[1] + p[2] <= start + found[name].weight.n_bytes]
        assert [sum(n for node, _, n in inside if node == number) for number in (0, 1)] == expected
        assert bytes_of(found[name]) == tensors[name].data.tobytes()


def test_a_system_that_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    two_nodes(monkeypatch)

    def refuse(*_: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with clarion.load(context=64, threads=2, weights="copied") as model:
        assert model.generate(PROMPT, max_tokens=3).tokens
