"""What blocks, off the event loop: in slices, so that a client that leaves ends it soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_slices(function: Callable[[list[T]], R], items: Sequence[T], n: int) -> list[R]:
    """Calls a function with n items at a time, in a thread; gives its results.

    Whoever is cancelled waits for the slice that is being worked on: until then the model is busy.
    """
    found = []
    for start in range(0, len(items), n):
        work = asyncio.ensure_future(asyncio.to_thread(function, list(items[start : start + n])))
        try:
            found.append(await asyncio.shield(work))
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
    return found
