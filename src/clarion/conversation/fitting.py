"""Which messages are left out of a conversation that is longer than the context.

Whole exchanges are, the oldest first. An exchange is a message of the user and all that followed it: calls of
tools, their results, the answer. What stands before the first message of the user is one, too. The last
exchange stays, and so does what the system said, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

M = TypeVar("M", bound=Mapping[str, Any])
T = TypeVar("T")

_KEPT: Final = ("system", "developer")  # roles of instructions
_ROOM_SHARE: Final = 8  # of the context, which an answer of unknown length has at least


def room_for_answer(context: int, wanted: int | None) -> int:
    """Tokens that the messages leave free. `wanted`: what the answer may have at most; None: no limit."""
    return max(1, min(context if wanted is None else wanted, context // _ROOM_SHARE))


def fitting(messages: Sequence[M], write: Callable[[list[M]], T], fits: Callable[[T], bool]) -> tuple[T, int]:
    """The conversation, written with as many of its messages as fit, and how many were left out.

    Where even the last exchange is too long, it is written alone: whoever asks looks at the length.

    Args:
        write: from messages to the prompt. It is called about log2(exchanges) times: fewer messages are
            taken to be shorter.
        fits: whether a prompt is short enough.
    """
    written = write(list(messages))
    ends = _ends(messages)
    if fits(written) or not ends:
        return written, 0
    low, high = 0, len(ends) - 1  # the fewest exchanges that have to go are among these, or all have to
    found: dict[int, T] = {}
    while low < high:
        middle = (low + high) // 2
        found[middle] = write(_without(messages, ends[middle]))
        if fits(found[middle]):
            high = middle
        else:
            low = middle + 1
    kept = _without(messages, ends[low])
    return found[low] if low in found else write(kept), len(messages) - len(kept)


def _ends(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Where each exchange ends that may be left out with all before it."""
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return [i for i in starts if any(message["role"] not in _KEPT for message in messages[:i])]


def _without(messages: Sequence[M], end: int) -> list[M]:
    return [message for i, message in enumerate(messages) if i >= end or message["role"] in _KEPT]
