"""The radix tree against a dict of tuples: for each prefix that is retained, when it was last used."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clarion.runtime.states.kinds import Span
from clarion.runtime.states.prefixes import Node, Prefixes, age
from clarion.runtime.states.restore import RestorePoints
from tests.runtime.states.toys import ToyRecurrent, folded

GRAIN = 4
TOKENS = st.lists(st.integers(0, 1), max_size=14)


class CellSpan:
    """A span that holds cells, and remembers whether it was given back."""

    tail_is_idle = True

    def __init__(self, start: int, cells: list[int]) -> None:
        self.start = start
        self.cells = cells
        self.released = False

    def split(self, at: int) -> Span:
        rest = CellSpan(at, self.cells[at - self.start :])
        del self.cells[at - self.start :]
        return rest

    def cut(self, end: int) -> None:
        assert self.start < end < self.start + len(self.cells)
        del self.cells[end - self.start :]

    def extend(self, after: Span) -> None:
        assert isinstance(after, CellSpan)
        assert after.start == self.start + len(self.cells)
        self.cells += after.cells

    def lean(self, after: Span) -> None:
        assert isinstance(after, CellSpan)
        assert after.start == self.start + len(self.cells)

    def release(self) -> None:
        assert not self.released
        self.released = True


class PrefixesMachine(RuleBasedStateMachine):
    """The tree holds exactly the prefixes that the dict has, each with its own cells."""

    recurrent = False

    def __init__(self) -> None:
        super().__init__()
        self.kind = ToyRecurrent(1, 10)
        count = itertools.count(1)
        self.now = 0

        def clock() -> int:
            self.now = next(count)
            return self.now

        self.points = RestorePoints([self.kind] if self.recurrent else [], 10_000, clock)
        self.tree = Prefixes(GRAIN, self.points, clock)
        self.used: dict[tuple[int, ...], int] = {}
        self.marked: set[tuple[int, ...]] = set()  # those with a point
        self.taken: list[list[int]] = []

    def use(self, tokens: list[int]) -> None:
        for n in range(1, len(tokens) + 1):
            self.used[tuple(tokens[:n])] = self.now

    @rule(data=st.data(), tail=TOKENS, inner=st.integers(0, 14))
    def insert(self, data: st.DataObject, tail: list[int], inner: int) -> None:
        tokens = data.draw(st.sampled_from([[], *self.taken])) + tail
        self.taken.append(tokens)
        lengths = sorted({min(inner, len(tokens)), len(tokens)} - {0}) if self.recurrent else []
        points = [self.point(tokens[:n]) for n in lengths]
        self.tree.insert(tokens, points, lambda start, end: (CellSpan(start, tokens[start:end]),))
        self.use(tokens)
        for point in points:
            self.marked.add(tuple(tokens[: point.length]))
            self.points.drop(point)

    def point(self, tokens: list[int]):  # type: ignore[no-untyped-def]
        part = self.kind.part(0)
        self.kind.state[0] = folded(tokens)
        part.append(len(tokens))
        return self.points.make(len(tokens), [part])

    @rule(data=st.data(), tail=TOKENS)
    def look_up(self, data: st.DataObject, tail: list[int]) -> None:
        tokens = data.draw(st.sampled_from([[], *self.taken])) + tail
        usable = self.marked if self.recurrent else self.used
        expected = max((n for n in range(len(tokens) + 1) if tuple(tokens[:n]) in usable), default=0)
        assert self.tree.longest(tokens) == expected
        path, points = self.tree.take(tokens, expected)
        self.use(tokens[:expected])
        assert [cell for (span,) in path for cell in span.cells] == tokens[:expected]  # type: ignore[attr-defined]
        if self.recurrent:
            found = {tuple(tokens[: point.length]) for point in points}
            assert found == {key for key in self.marked if key == tuple(tokens[: len(key)])} & {
                tuple(tokens[:n]) for n in range(expected + 1)
            }

    @precondition(lambda self: self.used)
    @rule()
    def evict(self) -> None:
        """The least recently used end goes; or, where points are needed, all behind the last one."""
        leaf = self.tree.oldest()
        assert leaf is not None
        path = tuple(self.path(leaf))
        ends = [key for key in self.used if not any((*key, token) in self.used for token in (0, 1))]
        assert self.used[path] == min(self.used[key] for key in ends)
        start = leaf.start
        self.tree.cut(leaf)
        self.marked.discard(path)
        if self.recurrent:
            self.drop_unmarked_ends()
        else:
            end = max(start, (len(path) - 1) // GRAIN * GRAIN)
            for n in range(end + 1, len(path) + 1):
                del self.used[path[:n]]

    @precondition(lambda self: self.marked)
    @rule()
    def evict_point(self) -> None:
        point = self.points.oldest()
        assert point is not None
        key = tuple(self.path(point.node)[: point.length])
        assert key in self.marked
        self.points.evict(point)
        self.tree.point_is_gone(point)
        self.marked.discard(key)
        self.drop_unmarked_ends()

    def drop_unmarked_ends(self) -> None:
        while ends := [
            key
            for key in self.used
            if key not in self.marked and not any((*key, token) in self.used for token in (0, 1))
        ]:
            for key in ends:
                del self.used[key]

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.used.clear()
        self.marked.clear()

    def path(self, node: Node) -> list[int]:
        return (self.path(node.parent) if node.parent is not None else []) + node.tokens

    @invariant()
    def the_same_prefixes(self) -> None:
        found: dict[tuple[int, ...], int] = {}
        marked = set()
        for node in self.tree.nodes():
            path = self.path(node)
            (span,) = node.spans
            assert isinstance(span, CellSpan)
            assert span.start == node.start
            assert span.cells == node.tokens != []
            assert not span.released
            found |= {tuple(path[:n]): node.stamp for n in range(node.start + 1, node.end + 1)}
            for length, point in node.points.items():
                assert (point.node, point.length, point.holders) == (node, length, 1)
                (snapshot,) = point.snapshots
                assert snapshot.state == folded(path[:length])  # type: ignore[union-attr]
                marked.add(tuple(path[:length]))
            assert (node in self.tree._leaves) == (not node.children)
        assert found == self.used
        assert marked == self.marked
        assert len(self.tree._leaves) == sum(not node.children for node in self.tree.nodes())
        assert self.kind.n_snapshots == len(self.marked)


class MarkedPrefixesMachine(PrefixesMachine):
    recurrent = True


PrefixesMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPrefixes = PrefixesMachine.TestCase
MarkedPrefixesMachine.TestCase.settings = PrefixesMachine.TestCase.settings
TestMarkedPrefixes = MarkedPrefixesMachine.TestCase


class CountingList(list[int]):
    """A prompt that counts how many of its tokens are read."""

    read = 0

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        found = super().__getitem__(i)
        CountingList.read += len(found) if isinstance(i, slice) else 1
        return found


def test_a_lookup_costs_the_length_of_the_prompt_only() -> None:
    points = RestorePoints([], 0, itertools.count().__next__)
    tree = Prefixes(GRAIN, points, itertools.count().__next__)
    costs = []
    for first in range(2000):
        tokens = [*range(50), first, *range(50)]
        tree.insert(tokens, [], lambda start, end, tokens=tokens: (CellSpan(start, tokens[start:end]),))  # type: ignore[misc]
        CountingList.read = 0
        assert tree.longest(CountingList(tokens)) == 101
        costs.append(CountingList.read)
    assert max(costs) <= 2 * 101


def test_leaves_that_running_sequences_hold_go_last() -> None:
    tree = Prefixes(GRAIN, RestorePoints([], 0, itertools.count().__next__), itertools.count().__next__)
    tree.insert([1, 2, 3], [], lambda start, end: (CellSpan(start, [1, 2, 3]),))
    tree.insert([5, 6, 7], [], lambda start, end: (CellSpan(start, [5, 6, 7]),))
    first = tree.oldest()
    assert first is not None
    assert first.tokens == [1, 2, 3]
    first.spans[0].tail_is_idle = False  # type: ignore[misc]
    second = tree.oldest()
    assert second is not None
    assert second.tokens == [5, 6, 7]
    assert age(second) < age(first)
