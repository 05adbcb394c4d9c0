"""Random writes, moves, failures and runs: what a run reads is right, and stays so until the run ends."""

from __future__ import annotations

import ctypes

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from clarion._native import files
from clarion.residency.store import Unit
from tests.residency.weights import matrix

ROW = 8  # bytes
WEIGHTS = [matrix("a", 48, ROW), matrix("b", 7, ROW), matrix("c", 32, ROW, experts=2), matrix("d", 1, ROW)]


def content(name: str, i: int, size: int, panels: bool) -> bytes:
    """Another for each extent and layout."""
    return bytes((ord(name) + 10 * i + 3 * at + 128 * panels) % 255 for at in range(size))


class Policies(RuleBasedStateMachine):
    """Policies that write wherever they may, as soon as they may; runs that hold what they have read.

    `retired` are copies that were replaced, and the version that replaced them; whatever the store says has
    no readers is overwritten at once.
    """

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.store = files.Store(1)
        self.units = {w.name: Unit(w, self.store, is_panels=w.name in "ac") for w in WEIGHTS}
        self.placed: dict[tuple[str, int], bytearray] = {}
        self.retired: list[tuple[int, bytearray]] = []
        self.inside: dict[files.Run, tuple[int, list[tuple[int, bytes]]]] = {}
        self.version = 0

    def size(self, name: str, i: int) -> int:
        extent = self.units[name].extents[i]
        return extent.stop - extent.start

    @rule(name=st.sampled_from("abcd"), which=st.integers(0, 99), panels=st.booleans())
    def move(self, name: str, which: int, panels: bool) -> None:
        unit = self.units[name]
        i, panels = which % len(unit.extents), panels and unit.is_panels
        copy = bytearray(content(name, i, self.size(name, i), panels))
        self.version += 1
        assert unit.place(i, memoryview(copy), panels=panels) == self.version
        if (name, i) in self.placed:
            self.retired.append((self.version, self.placed[name, i]))
        self.placed[name, i] = copy

    @rule(name=st.sampled_from("abcd"), which=st.integers(0, 99), wrong=st.sampled_from(["size", "panels"]))
    def fail(self, name: str, which: int, wrong: str) -> None:
        """A write that is refused changes nothing."""
        unit = self.units[name]
        i = which % len(unit.extents)
        before = unit.at(i)
        if wrong == "size":
            with pytest.raises(ValueError, match=f"extent {i}: found {self.size(name, i) - 1} bytes"):
                unit.place(i, memoryview(bytes(self.size(name, i) - 1)))
        elif not unit.is_panels:
            with pytest.raises(ValueError, match=f"extent {i}: found panels"):
                unit.place(i, memoryview(bytes(self.size(name, i))), panels=True)
        assert unit.at(i) == before

    @rule(name=st.sampled_from("abcd"), which=st.integers(0, 99))
    def evict(self, name: str, which: int) -> None:
        unit = self.units[name]
        i = which % len(unit.extents)
        before = unit.at(i)
        if unit.evict(i):
            assert not self.inside
            self.version += 1
            assert unit.at(i) is None
            gone = self.placed.pop((name, i), None)
            if gone is not None:
                gone[:] = bytes([255] * len(gone))
        else:
            assert self.inside
            assert unit.at(i) == before

    @rule(target=runs, urgent=st.booleans())
    def begin(self, urgent: bool) -> files.Run:
        run = self.store.run(urgent)
        assert run.__enter__() == self.version
        self.inside[run] = (self.version, [])
        return run

    @rule(run=runs)
    def read(self, run: files.Run) -> None:
        """All that is resident, as it lies there."""
        if run not in self.inside:
            return
        for name, unit in self.units.items():
            for i in range(len(unit.extents)):
                place = unit.at(i)
                assert (place is not None) == ((name, i) in self.placed)
                if place is not None:
                    right = content(name, i, self.size(name, i), place[1])
                    self.inside[run][1].append((place[0], right))

    @rule(run=consumes(runs))
    def end(self, run: files.Run) -> None:
        run.__exit__(None, None, None)
        self.inside.pop(run)

    @rule()
    def overwrite(self) -> None:
        reached = self.store.reached()
        assert reached == min((version for version, _ in self.inside.values()), default=self.version)
        for version, copy in self.retired:
            if version <= reached:
                assert self.store.wait(version)
                copy[:] = bytes([255] * len(copy))
        self.retired = [(version, copy) for version, copy in self.retired if version > reached]

    @invariant()
    def what_runs_have_read_stays(self) -> None:
        for _, held in self.inside.values():
            for address, right in held:
                assert ctypes.string_at(address, len(right)) == right


test_policies = Policies.TestCase


def test_a_run_is_inside_once() -> None:
    store = files.Store()
    run = store.run()
    with run, pytest.raises(ValueError, match="inside already"):
        run.__enter__()
    with run:
        assert store.reached() == 0


def test_what_a_unit_points_to_lives_as_long_as_a_run_may_read_it() -> None:
    """And no longer, though nobody else holds it."""

    class Watched(bytearray):
        alive = 0

        def __init__(self, n: int) -> None:
            super().__init__(n)
            Watched.alive += 1

        def __del__(self) -> None:
            Watched.alive -= 1

    unit = (store := files.Store()).add(1, 1, 8)
    unit.place(0, Watched(8))
    with store.run():
        unit.place(0, Watched(8))
        assert Watched.alive == 2
    unit.place(0, Watched(8))
    assert Watched.alive == 1
    assert unit.evict(0)
    assert Watched.alive == 0
    unit.place(0, Watched(8))
    reader = unit.reader
    del unit, store
    assert Watched.alive == 1
    del reader
    assert Watched.alive == 0


def test_extents_that_a_unit_does_not_have() -> None:
    unit = files.Store().add(1, 1, 8)
    for ask in (unit.span, unit.at, unit.evict, lambda i: unit.place(i, bytes(8))):
        for i in (-1, 1):
            with pytest.raises((IndexError, ValueError), match="extent"):
                ask(i)
