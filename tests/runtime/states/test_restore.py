"""Which restore points there are, in a program with a kind that cannot truncate anywhere."""

from __future__ import annotations

import pytest

from clarion.errors import ParameterError
from clarion.runtime.states.restore import FIRST_SPACED
from clarion.runtime.states.states import SequenceState
from tests.runtime.states.toys import Toy


def lengths(state: SequenceState) -> list[int]:
    return [point.length for point in state._points if point.alive]


def test_points_that_nobody_marks_are_spaced_geometrically() -> None:
    toy = Toy(n_pages=100, context=6000, recurrent=True)
    state = toy.open([1])
    while state.length < 5000:
        assert toy.compute(state, [state.length] * 7)
    found = lengths(state)
    assert len(found) == 5
    for at, wanted in zip(found, [FIRST_SPACED, *(2 * at for at in found)], strict=False):
        assert wanted <= at < wanted + 7
    for n in (4000, 1500, 300):
        m = state.truncate(n)
        assert n / 2 - 7 <= m <= n
        toy.check(state, [1, *state.tokens[1:]])


def test_marks_are_points_and_truncate_says_which_it_reached() -> None:
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open(list(range(40)))
    state.mark()
    assert toy.compute(state, list(range(40, 90)))
    state.mark()
    state.mark()
    assert lengths(state) == [40, 90]
    assert toy.compute(state, list(range(90, 130)))
    assert state.truncate(125) == 125  # within what can be rewound
    assert state.truncate(100) == 90
    toy.check(state, range(90))
    assert state.truncate(89) == 40
    toy.check(state, range(40))
    assert state.truncate(39) == 0
    assert lengths(state) == []
    toy.check(state, [])


def test_rewind_is_exact_and_has_its_limit() -> None:
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open(list(range(40)))
    state.rewind(10)
    toy.check(state, range(30))
    assert state.rewindable == 6
    with pytest.raises(ParameterError, match="rewind: found 7, expected 0 to 6"):
        state.rewind(7)
    assert toy.compute(state, [7])
    state.rewind(7)
    toy.check(state, range(24))
    with pytest.raises(ParameterError, match="truncate: found -1"):
        state.truncate(-1)


def test_pages_truncate_and_rewind_anywhere_without_points() -> None:
    toy = Toy(n_pages=8)
    state = toy.open(list(range(200)))
    state.mark()
    assert lengths(state) == []
    for n in (190, 64, 63, 1, 0):
        assert state.truncate(n) == n
        toy.check(state, range(n))


def test_a_prefix_is_continued_from_its_last_point() -> None:
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open(list(range(40)))
    state.mark()
    assert toy.compute(state, list(range(40, 90)))
    toy.states.retain(state)
    for prompt, reused in [
        ([*range(90), 5, 6], 90),
        ([*range(89), 5, 6], 40),
        ([*range(40), 5, 6], 40),
        ([*range(39), 5, 6], 0),
    ]:
        other = toy.states.open(prompt, reuse=True)
        assert other is not None
        assert other.length == reused
        assert lengths(other) == [n for n in (40, 90) if n <= reused]
        assert toy.compute(other, prompt[reused:])
        toy.check(other, prompt)
        other.release()


def test_points_keep_to_their_limit_and_the_least_recently_used_goes() -> None:
    toy = Toy(n_pages=20, context=512, recurrent=True, restore_bytes=2 * 700)
    state = toy.open(list(range(40)))
    for end in (60, 80, 100):
        state.mark()
        assert toy.compute(state, list(range(state.length, end)))
    assert lengths(state) == [60, 80]
    assert toy.states.points.used_bytes == 1400
    assert state.truncate(60) == 60
    assert toy.compute(state, list(range(60, 150)))
    other = toy.open(list(range(1000, 1030)))
    other.mark()
    assert lengths(state) == [60]  # the one at 80, which others could still continue, went
    assert toy.states.prefixes.longest(list(range(100))) == 60
    state.mark()
    assert lengths(state) == [150]
    assert lengths(other) == [30]


def test_points_make_room_for_who_needs_it() -> None:
    toy = Toy(n_pages=4, recurrent=True)
    state = toy.open(list(range(100)))
    state.mark()
    assert toy.states.evictable_bytes == 700
    assert toy.states.free_bytes == 2 * 512 - 700
    assert toy.compute(state, list(range(100, 256)))
    assert lengths(state) == []
    toy.check(state, range(256))


def test_no_point_is_made_where_there_is_no_room_for_any() -> None:
    toy = Toy(n_pages=8, recurrent=True, restore_bytes=699)
    state = toy.open(list(range(100)))
    state.mark()
    assert lengths(state) == []
    assert state.truncate(50) == 0
    full = Toy(n_pages=1, context=64, recurrent=True)
    state = full.open(list(range(60)))
    state.mark()
    assert lengths(state) == []


def test_a_point_counts_once_and_lives_as_long_as_a_holder() -> None:
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open(list(range(100)))
    state.mark()
    twin = state.fork(100)
    assert twin is not None
    assert toy.states.points.used_bytes == 700
    state.release()
    toy.states.prefixes.clear()
    assert toy.compute(twin, list(range(50)))
    assert twin.truncate(110) == 100
    toy.check(twin, range(100))
    twin.release()
    assert toy.states.used_bytes == 0
