"""What blocks, off the event loop: in slices, so that a client that leaves ends it soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


async def to_the_end(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Calls a function in a thread. Whoever is cancelled waits for its end: what it works with is busy."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def in_slices(function: Callable[[list[T]], R], items: Sequence[T], n: int) -> list[R]:
    """Calls a function with n items at a time, in a thread; gives its results. Whoever is cancelled waits for
    the slice that is being worked on."""
    return [await to_the_end(function, list(items[start : start + n])) for start in range(0, len(items), n)]
