"""Stop strings do not depend on how the text was cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.runtime.stopping import StopStrings

LETTERS = st.text("ab", max_size=12)


def through(stops: list[str], pieces: list[str]) -> tuple[str, str | None, list[str]]:
    machine, emitted = StopStrings(stops), []
    for piece in pieces:
        certain, stop = machine.feed(piece)
        emitted.append(certain)
        if stop is not None:
            return "".join(emitted), stop, emitted
    emitted.append(machine.finish())
    return "".join(emitted), None, emitted


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(LETTERS, max_size=6))
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    text, stop, _ = through(stops, pieces)
    assert (text, stop) == through(stops, list(whole))[:2]
    assert whole.startswith(text)
    if stop is None:
        assert text == whole
        assert not any(s in whole for s in stops)
    else:
        assert whole.startswith(text + stop)
        assert not any(s in (text + stop)[:-1] for s in stops)


@pytest.mark.parametrize(
    ("stops", "pieces", "emitted"),
    [
        (["END"], ["one E", "N", "D two"], ["one ", "", ""]),
        (["END"], ["one E", "N", "X"], ["one ", "", "ENX", ""]),
        (["aab"], ["aaaa", "ab"], ["aa", "a"]),
        (["\n\n"], ["x\n", "y"], ["x", "\ny", ""]),
        ([], ["x", "y"], ["x", "y", ""]),
    ],
)
def test_only_a_possible_beginning_is_held_back(
    stops: list[str], pieces: list[str], emitted: list[str]
) -> None:
    assert through(stops, pieces)[2] == emitted
