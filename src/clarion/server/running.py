"""GET /ps: the models that are loaded, what they take and what they do. `clarion ps` shows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # `clarion ps` needs no more than the types
    from clarion.server.call import Call
    from clarion.server.pool import Pool, Served
    from clarion.server.settings import Settings


class Loaded(msgspec.Struct):
    """A model that is loaded, or is being loaded.

    Attributes:
        name: by which clients know it.
        is_loading: nothing else is known yet.
        bytes: of memory, for weights, states and workspace.
        context: tokens of a prompt and its answer at most.
        running: texts that are computed, up to `parallel`.
        waiting: requests in its line.
        users: requests that use it in any way.
        unloads_in: seconds after which it is unloaded, unless somebody uses it; None: it stays.
    """

    name: str
    is_loading: bool
    bytes: int = 0
    context: int = 0
    running: int = 0
    waiting: int = 0
    users: int = 0
    parallel: int = 0
    unloads_in: float | None = None


class Loads(msgspec.Struct):
    """All that are.

    Attributes:
        bytes: of memory that they take together.
        memory_bytes: that they may take.
    """

    models: list[Loaded]
    bytes: int
    memory_bytes: int


async def running(call: Call) -> None:
    """GET /ps"""
    await call.answer(loads(call.server.pool, call.server.settings))


def loads(pool: Pool, settings: Settings) -> Loads:
    """What is loaded now."""
    found = [_loaded(served, settings) for served in pool.known() if served.model or served.loading]
    return Loads(found, sum(each.bytes for each in found), pool.memory_bytes)


def _loaded(served: Served, settings: Settings) -> Loaded:
    model, line = served.model, served.line
    if model is None:
        return Loaded(served.name, True, waiting=line.waiting, parallel=settings.parallel)
    unloads_in = None
    if settings.idle_seconds > 0 and served.users == 0:
        unloads_in = max(0.0, round(served.used + settings.idle_seconds - time.monotonic(), 1))
    return Loaded(
        served.name,
        False,
        model.memory_bytes,
        model.context,
        line.running,
        line.waiting,
        served.users,
        settings.parallel,
        unloads_in,
    )
