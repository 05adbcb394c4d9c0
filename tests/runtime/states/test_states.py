"""States against plain lists, under any order of operations, with kinds alone and together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clarion.errors import ContextError, ParameterError
from clarion.runtime.states.kinds import REWIND
from clarion.runtime.states.paged import PagedSpan
from clarion.runtime.states.pages import PAGE_SIZE, PageKind
from clarion.runtime.states.states import SHORTEST_REUSE, SequenceState, States
from clarion.runtime.states.windowed import WindowedSnapshot
from tests.runtime.states.toys import PAGE_BYTES, Toy, ToyRecurrent, ToySnapshot, folded

N_PAGES = 14
N_SLOTS = 4
CONTEXT = 300
BATCH = 40


class Twin:
    """A state and what it must hold."""

    def __init__(self, state: SequenceState, tokens: list[int]) -> None:
        self.state = state
        self.tokens = tokens
        self.computed = 0  # since it could last be rewound without limit


class StatesMachine(RuleBasedStateMachine):
    """Whatever happens, each sequence finds its own tokens; the budget holds; nothing is lost."""

    kinds: ClassVar[dict[str, Any]] = {}
    most_points = 4

    def __init__(self) -> None:
        super().__init__()
        options = {"n_pages": N_PAGES, "n_slots": N_SLOTS, "context": CONTEXT, "batch": BATCH} | self.kinds
        point_bytes = Toy(**options).states.points.point_bytes
        self.toy = Toy(**options, restore_bytes=self.most_points * point_bytes)
        self.states = self.toy.states
        self.needs_points = self.states.points.needed
        self.twins: list[Twin] = []
        self.histories: list[list[int]] = [[]]
        self.next_token = 0
        self.folder = tempfile.TemporaryDirectory()
        self.saved: list[tuple[Path, list[int]]] = []

    def new_tokens(self, n: int) -> list[int]:
        self.next_token += n
        return list(range(self.next_token - n, self.next_token))

    def draw(self, data: st.DataObject) -> Twin:
        return data.draw(st.sampled_from(self.twins))

    @rule(data=st.data(), share=st.floats(0, 1), n=st.integers(1, 100), reuse=st.booleans())
    def open(self, data: st.DataObject, share: float, n: int, reuse: bool) -> None:
        history = data.draw(st.sampled_from(self.histories))
        tokens = (history[: round(len(history) * share)] + self.new_tokens(n))[:CONTEXT]
        used = self.states.used_bytes
        state = self.states.open(tokens, reuse=reuse)
        assert self.states.used_bytes == used
        if state is None:
            assert len(self.twins) == N_SLOTS
            return
        assert state.length < len(tokens)
        assert state.length == 0 or (reuse and state.length >= SHORTEST_REUSE)
        twin = Twin(state, tokens[: state.length])
        self.twins.append(twin)
        self.extend_by(twin, tokens[state.length :])

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), n=st.integers(0, 90))
    def extend(self, data: st.DataObject, n: int) -> None:
        twin = self.draw(data)
        self.extend_by(twin, self.new_tokens(min(n, CONTEXT - len(twin.tokens))))

    def extend_by(self, twin: Twin, tokens: list[int]) -> None:
        for i in range(0, len(tokens), BATCH):
            if not self.extend_once(twin, tokens[i : i + BATCH]):
                return

    def extend_once(self, twin: Twin, new: list[int]) -> bool:
        missing, free = twin.state.missing(len(new)), self.states.free_bytes
        fits = twin.state.fits(len(new))
        assert fits == self.states.room_for(twin.state.missing(len(new), alone=True))
        assert fits or not self.states.room_for(missing)
        if not twin.state.reserve(len(new)):
            assert not fits
            assert missing > free == self.states.free_bytes
            return False
        assert fits
        assert missing > free or self.states.free_bytes == free - missing
        assert twin.state.missing(len(new)) == 0
        self.toy.run(twin.state, new)
        twin.state.append(new)
        twin.tokens += new
        twin.computed += len(new)
        self.histories.append(list(twin.tokens))
        return True

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), n=st.integers(0, BATCH))
    def reserve_in_vain(self, data: st.DataObject, n: int) -> None:
        """A run that never came."""
        twin = self.draw(data)
        twin.state.reserve(min(n, CONTEXT - len(twin.tokens)))

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), n=st.integers(0, BATCH))
    def cancel(self, data: st.DataObject, n: int) -> None:
        """A run that came, but not to its end."""
        twin = self.draw(data)
        new = self.new_tokens(min(n, CONTEXT - len(twin.tokens)))
        if twin.state.reserve(len(new)):
            self.toy.run(twin.state, new, appended=False)
            twin.computed = 0

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), share=st.floats(0, 1))
    def truncate(self, data: st.DataObject, share: float) -> None:
        twin = self.draw(data)
        n = round(len(twin.tokens) * share)
        m = twin.state.truncate(n)
        self.went_back(twin, n, m)

    def went_back(self, twin: Twin, n: int, m: int) -> None:
        assert m <= n
        if not self.needs_points or len(twin.tokens) - n <= min(REWIND, twin.computed):
            assert m == n
        if len(twin.tokens) != m:
            twin.computed = 0
        del twin.tokens[m:]

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), k=st.integers(0, REWIND))
    def rewind(self, data: st.DataObject, k: int) -> None:
        twin = self.draw(data)
        assert twin.state.rewindable >= min(REWIND, twin.computed)
        if k > twin.state.rewindable:
            with pytest.raises(ParameterError, match="rewind: found"):
                twin.state.rewind(k)
            return
        twin.state.rewind(k)
        del twin.tokens[len(twin.tokens) - k :]
        twin.computed = 0

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), share=st.floats(0, 1))
    def fork(self, data: st.DataObject, share: float) -> None:
        twin = self.draw(data)
        n = round(len(twin.tokens) * share)
        used = self.states.used_bytes
        state = twin.state.fork(n)
        assert self.states.used_bytes == used
        if state is None:
            assert len(self.twins) == N_SLOTS
            return
        other = Twin(state, list(twin.tokens))
        other.computed = twin.computed
        self.twins.append(other)
        self.went_back(other, n, state.length)
        other.computed = 0

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        twin = self.draw(data)
        twin.state.mark()
        if not self.needs_points:
            n = len(twin.tokens) // PAGE_SIZE * PAGE_SIZE
            assert self.states.prefixes.longest(twin.tokens) >= n

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def retain(self, data: st.DataObject) -> None:
        twin = self.draw(data)
        self.twins.remove(twin)
        used = self.states.used_bytes
        self.states.retain(twin.state)
        assert self.states.used_bytes <= used + self.states.points.point_bytes
        if not self.needs_points and len(twin.tokens) >= SHORTEST_REUSE:
            assert self.states.prefixes.longest(twin.tokens) == len(twin.tokens)

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        twin = self.draw(data)
        self.twins.remove(twin)
        twin.state.release()

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def save(self, data: st.DataObject) -> None:
        twin = self.draw(data)
        path = Path(self.folder.name, f"{len(self.saved)}.state")
        twin.state.save(path)
        self.saved.append((path, list(twin.tokens)))

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        path, tokens = data.draw(st.sampled_from(self.saved))
        room = self.states.room_for(sum(kind.load_bytes(len(tokens)) for kind in self.states.kinds))
        state = self.states.load(path)
        if state is None:
            assert len(self.twins) == N_SLOTS or not room
            return
        self.twins.append(Twin(state, list(tokens)))

    @rule(n_pages=st.integers(0, N_PAGES))
    def evict(self, n_pages: int) -> None:
        room = self.states.room_for(n_pages * PAGE_BYTES)
        evictable = self.states.evictable_bytes
        free = self.states.free_bytes
        self.states.evict(n_pages * PAGE_BYTES)
        if room:
            assert self.states.free_bytes >= n_pages * PAGE_BYTES
        else:
            assert self.states.free_bytes == free + evictable

    @invariant()
    def each_finds_its_own(self) -> None:
        for twin in self.twins:
            self.toy.check(twin.state, twin.tokens)

    @invariant()
    def bytes_are_what_is_held(self) -> None:
        used, idle, n_points = held(self.states, [twin.state for twin in self.twins])
        assert self.states.used_bytes == used <= self.states.budget_bytes == N_PAGES * PAGE_BYTES
        assert self.states.evictable_bytes == idle
        points = self.states.points
        assert points.used_bytes == n_points * points.point_bytes
        assert n_points <= (self.most_points if self.needs_points else 0)
        assert self.states.free_slots == N_SLOTS - len(self.twins)

    @invariant()
    def the_tree_holds_what_it_says(self) -> None:
        paths: dict[int, list[int]] = {}
        for node in self.states.prefixes.nodes():
            path = paths.get(id(node.parent), []) + node.tokens
            paths[id(node)] = path
            assert len(path) == node.end
            if self.needs_points and not node.children:
                assert node.end in node.points
            for length, point in node.points.items():
                assert point.alive
                assert point.node is node
                assert node.start < length <= node.end
                for snapshot in point.snapshots:
                    if isinstance(snapshot, ToySnapshot):
                        assert snapshot.state == folded(path[:length])
            span = node.spans[0]
            if not isinstance(span, PagedSpan):
                continue
            assert (span.start, span.end) == (node.start, node.end)
            first = node.start // PAGE_SIZE
            assert len(span.pages) == -(-node.end // PAGE_SIZE) - first
            for position in range(first * PAGE_SIZE, node.end):
                page = span.pages[position // PAGE_SIZE - first]
                assert self.toy.device.read(page, position) == (position, path[position])

    def teardown(self) -> None:
        for twin in self.twins:
            twin.state.release()
        self.states.evict(self.states.budget_bytes)
        assert self.states.used_bytes == 0
        assert self.states.prefixes.nodes() == []
        assert self.states.free_slots == N_SLOTS
        assert not any(any(map(any, table.tolist())) for table in self.states.tables)
        self.folder.cleanup()


def held(states: States, live: list[SequenceState]) -> tuple[int, int, int]:
    """Bytes that are used, those that evicting would free, and points that anybody holds."""
    nodes = states.prefixes.nodes()
    points = {id(point): point for node in nodes for point in node.points.values()}
    points |= {id(point): point for state in live for point in state._points if point.alive}
    used = idle = 0
    for i, kind in enumerate(states.kinds):
        if isinstance(kind, PageKind):
            of_parts = {page for state in live for page in state._parts[i]._pages}  # type: ignore[attr-defined]
            spans = [node.spans[i] for node in nodes]
            kept = {page for span in spans if isinstance(span, PagedSpan) for page in span.pages}
            snapshots = [point.snapshots[i] for point in points.values()]
            kept |= {page for s in snapshots if isinstance(s, WindowedSnapshot) for page in s.pages}
            used += len(of_parts | kept) * PAGE_BYTES
            idle += len(kept - of_parts) * PAGE_BYTES
        else:
            used += len(points) * kind.snapshot_bytes
            idle += len(points) * kind.snapshot_bytes
    return used, idle, len(points)


class RecurrentStatesMachine(StatesMachine):
    kinds: ClassVar[dict[str, Any]] = {"recurrent": True}


class WindowedStatesMachine(StatesMachine):
    kinds: ClassVar[dict[str, Any]] = {"pages": False, "window": 70}


class SlotStatesMachine(StatesMachine):
    kinds: ClassVar[dict[str, Any]] = {"pages": False, "slots": True}


class MixedStatesMachine(StatesMachine):
    kinds: ClassVar[dict[str, Any]] = {"window": 70, "slots": True, "recurrent": True}


for machine in (
    StatesMachine, RecurrentStatesMachine, WindowedStatesMachine, SlotStatesMachine, MixedStatesMachine,
):  # fmt: skip
    machine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPages = StatesMachine.TestCase
TestRecurrent = RecurrentStatesMachine.TestCase
TestWindowed = WindowedStatesMachine.TestCase
TestSlots = SlotStatesMachine.TestCase
TestMixed = MixedStatesMachine.TestCase


def test_a_prefix_is_shared_without_a_copy_until_somebody_writes() -> None:
    toy = Toy(n_pages=8)
    first = toy.open(list(range(100)))
    toy.states.retain(first)
    assert toy.states.used_bytes == 2 * PAGE_BYTES
    second = toy.states.open([*range(90), 7], reuse=True)
    assert second is not None
    assert second.length == 90
    assert toy.states.used_bytes == 2 * PAGE_BYTES
    assert toy.device.copies == 0
    assert toy.compute(second, [7])
    assert toy.device.copies == 1
    assert toy.states.used_bytes == 3 * PAGE_BYTES
    toy.check(second, [*range(90), 7])
    third = toy.states.open(list(range(101)), reuse=True)
    assert third is not None
    toy.check(third, range(100))


def test_the_last_token_of_a_prompt_is_computed() -> None:
    toy = Toy(n_pages=8)
    toy.states.retain(toy.open(list(range(64))))
    state = toy.states.open(list(range(64)), reuse=True)
    assert state is not None
    assert state.length == 63


def test_a_short_prefix_is_not_shared() -> None:
    toy = Toy(n_pages=8)
    toy.states.retain(toy.open(list(range(100))))
    for n, reused in [(SHORTEST_REUSE - 1, 0), (SHORTEST_REUSE, SHORTEST_REUSE)]:
        state = toy.states.open([*range(n), 500, 501], reuse=True)
        assert state is not None
        assert state.length == reused
        state.release()


def test_a_prompt_is_shared_while_its_answer_is_written() -> None:
    """Whole pages of it, which costs no copy."""
    toy = Toy(n_pages=8)
    first = toy.open(list(range(100)))
    first.mark()
    second = toy.states.open(list(range(100)), reuse=True)
    assert second is not None
    assert second.length == PAGE_SIZE
    assert toy.compute(first, [1])
    assert toy.device.copies == 0


def test_nothing_is_evicted_for_who_does_not_fit() -> None:
    toy = Toy(n_pages=4)
    toy.states.retain(toy.open(list(range(100))))
    running = toy.open([*range(1000, 1100)])
    other = toy.states.open(list(range(2000, 2200)), reuse=True)
    assert other is not None
    assert not other.fits(129)
    assert not other.reserve(129)
    assert toy.states.prefixes.longest(list(range(100))) == 100
    assert other.reserve(128)
    assert toy.states.prefixes.longest(list(range(100))) == 0
    toy.check(running, range(1000, 1100))


def test_the_only_sequence_fits_though_its_last_page_is_retained() -> None:
    """No page is left for a copy; without the retained prefix none is needed."""
    toy = Toy(n_pages=1, context=64)
    toy.states.retain(toy.open(list(range(40))))
    state = toy.states.open(list(range(50)), reuse=True)
    assert state is not None
    assert state.length == 40
    assert state.missing(10) == PAGE_BYTES
    assert not toy.states.room_for(PAGE_BYTES)
    assert state.missing(10, alone=True) == 0
    assert state.fits(10)
    assert toy.compute(state, list(range(40, 50)))
    assert toy.device.copies == 0
    toy.check(state, range(50))


def test_the_beginning_of_a_prefix_outlives_its_end() -> None:
    toy = Toy(n_pages=4)
    toy.states.retain(toy.open(list(range(200))))
    toy.states.evict(PAGE_BYTES)
    assert toy.states.prefixes.longest(list(range(200))) == 192
    toy.states.evict(3 * PAGE_BYTES)
    assert toy.states.prefixes.longest(list(range(200))) == 64


def test_a_page_on_a_border_is_there_once_when_one_branch_is_left() -> None:
    toy = Toy(n_pages=8)
    toy.states.retain(toy.open(list(range(100))))
    toy.states.retain(toy.open([*range(40), *range(500, 560)]))
    assert toy.states.used_bytes == 4 * PAGE_BYTES
    toy.states.evict(6 * PAGE_BYTES)
    assert toy.states.used_bytes == 2 * PAGE_BYTES
    assert toy.states.prefixes.longest(list(range(100))) == 40
    state = toy.states.open([*range(40), *range(500, 561)], reuse=True)
    assert state is not None
    toy.check(state, [*range(40), *range(500, 560)])


def test_a_prefix_that_is_used_up_to_the_end_of_a_page_is_given_back_whole() -> None:
    toy = Toy(n_pages=8)
    toy.states.retain(toy.open(list(range(128))))
    toy.open([*range(64), 7]).release()
    toy.states.evict(8 * PAGE_BYTES)
    assert toy.states.used_bytes == 0


def test_what_was_used_last_is_evicted_last() -> None:
    toy = Toy(n_pages=6)
    prompts = [list(range(start, start + 100)) for start in (0, 1000, 2000)]
    for prompt in prompts:
        toy.states.retain(toy.open(prompt))
    toy.states.retain(toy.open([*prompts[0], 5]))
    toy.states.evict(4 * PAGE_BYTES)
    assert [toy.states.prefixes.longest(prompt) for prompt in prompts] == [100, 0, 0]


def test_a_sequence_keeps_to_the_context() -> None:
    toy = Toy(n_pages=8, context=100)
    state = toy.open(list(range(100)))
    with pytest.raises(ContextError, match="101 tokens, the context is 100"):
        state.reserve(1)


def test_slots_are_given_out_once() -> None:
    toy = Toy(n_pages=8, n_slots=2)
    first, second = toy.open([1]), toy.open([2])
    assert {first.slot, second.slot} == {0, 1}
    assert toy.states.open([3], reuse=False) is None
    assert first.fork(1) is None
    first.release()
    third = second.fork(1)
    assert third is not None
    assert third.slot == first.slot


def test_all_is_forgotten_after_an_error() -> None:
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open(list(range(100)))
    state.mark()
    toy.states.forget()
    assert toy.states.evictable_bytes == 0
    assert toy.states.prefixes.longest(list(range(100))) == 0
    state.release()
    assert toy.states.used_bytes == 0


@pytest.mark.parametrize(("n_pages", "budget"), [(4, 5 * PAGE_BYTES), (8, 3 * PAGE_BYTES)])
def test_a_budget_holds_a_context_and_not_more_than_the_pages(n_pages: int, budget: int) -> None:
    with pytest.raises(ParameterError, match="budget_bytes: found"):
        States(Toy(n_pages=n_pages).states.kinds, n_slots=1, context=256, budget_bytes=budget)


def test_a_program_without_pages_has_states() -> None:
    recurrent = ToyRecurrent(2, 700)
    states = States([recurrent], n_slots=2, context=64, budget_bytes=1400)
    state = states.open([1, 2, 3], reuse=True)
    assert state is not None
    assert state.reserve(20)
    recurrent.compute(state.slot, range(20))
    state.append(range(20))
    state.mark()
    states.retain(state)
    again = states.open([*range(20), 9], reuse=True)
    assert again is not None
    assert again.length == 20
    assert recurrent.state[again.slot] == folded(range(20))
    assert [table.shape for table in states.tables] == [(2, 1)]
