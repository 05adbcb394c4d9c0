"""Which messages of a long conversation are left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.conversation.fitting import fitting, room_for_answer

Message = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
conversations = st.lists(
    st.tuples(st.sampled_from(ROLES), st.integers(0, 9)).map(lambda pair: {"role": pair[0], "n": pair[1]}),
    max_size=40,
)


def fitted(messages: list[Message], most: int) -> tuple[list[Message], int]:
    return fitting(messages, list, lambda kept: sum(message["n"] for message in kept) <= most)


def say(*roles: str) -> list[Message]:
    return [{"role": role, "n": 1, "i": i} for i, role in enumerate(roles)]


@pytest.mark.parametrize(
    ("roles", "most", "left"),
    [
        (("system", "user", "assistant", "user"), 4, (0, 1, 2, 3)),
        (("system", "user", "assistant", "user"), 3, (0, 3)),
        (("system", "user", "assistant", "user"), 0, (0, 3)),
        (("user", "assistant", "tool", "assistant", "user", "assistant", "user"), 5, (4, 5, 6)),
        (("user", "assistant", "user", "assistant", "tool"), 1, (2, 3, 4)),
        (("assistant", "user", "assistant", "user"), 3, (1, 2, 3)),
        (("user", "system", "assistant", "user"), 3, (1, 3)),
        (("user", "user", "user"), 2, (1, 2)),
        (("system", "user"), 0, (0, 1)),
        (("system", "assistant"), 0, (0, 1)),
    ],
)
def test_examples(roles: tuple[str, ...], most: int, left: tuple[int, ...]) -> None:
    kept, n = fitted(say(*roles), most)
    assert tuple(message["i"] for message in kept) == left
    assert n == len(roles) - len(left)


@settings(max_examples=500, deadline=None)
@given(conversations, st.integers(0, 150))
def test_no_more_than_has_to_go(messages: list[Message], most: int) -> None:
    """Whatever is said: what the system said and the last exchange stay, in order; what goes are the oldest
    exchanges as wholes; and one exchange less would be too long."""
    before = [dict(message) for message in messages]
    kept, n = fitted(messages, most)
    assert messages == before
    assert n == len(messages) - len(kept)
    size = sum(message["n"] for message in messages)
    if size <= most:
        assert kept == messages
        return
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    last = users[-1] if users else 0
    rules = [i for i, message in enumerate(messages) if message["role"] in ROLES[:2]]

    def without(end: int) -> list[Message]:
        return [message for i, message in enumerate(messages) if i in rules or i >= end]

    starts = users or [0]
    ends = [end for end in starts if without(end) != messages] or [0]
    short = [end for end in ends if sum(message["n"] for message in without(end)) <= most]
    assert kept == without(short[0] if short else last)


@settings(max_examples=100, deadline=None)
@given(conversations, st.integers(0, 150))
def test_it_is_written_few_times(messages: list[Message], most: int) -> None:
    calls = 0

    def write(kept: list[Message]) -> list[Message]:
        nonlocal calls
        calls += 1
        return kept

    fitting(messages, write, lambda kept: sum(message["n"] for message in kept) <= most)
    assert calls <= len(messages).bit_length() + 2


@pytest.mark.parametrize(
    ("context", "wanted", "room"), [(800, None, 100), (800, 7, 7), (800, 500, 100), (4, None, 1), (800, 0, 1)]
)
def test_room(context: int, wanted: int | None, room: int) -> None:
    assert room_for_answer(context, wanted) == room
