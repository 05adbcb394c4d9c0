"""Several models behind one server: loaded when they are asked for, unloaded when their room is needed.

    use(name) ──▶ a place in the model's line ──▶ loaded? ──▶ Model, busy until its users leave
                                                    │ no
                                                    ▼
                       one load at a time: room by bytes, from models that nobody uses

The event loop owns the pool; models are loaded and closed in threads. A model that somebody uses is never
closed. Where only busy models stand in the way, a load waits for them; after `patience` seconds they take no
new users before it, so that nobody waits for ever. Who leaves while a model is loaded leaves alone: the load
goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Protocol

from clarion.errors import ClarionError
from clarion.model import Model
from clarion.server.errors import RefusedError
from clarion.server.log import Log
from clarion.server.queue import Line
from clarion.server.settings import ALL, Settings
from clarion.server.tally import Tally
from clarion.server.threads import to_the_end


class Loader(Protocol):
    """How models come to be; `clarion.server.loading` is one."""

    def needed_bytes(self, path: Path | None, settings: Settings, memory_bytes: int) -> int: ...
    def load_model(self, path: Path | None, settings: Settings, memory_bytes: int) -> Model: ...


@dataclass(eq=False)
class Served:
    """A model that can be asked for.

    Attributes:
        name: by which clients know it.
        path: its file; None: the model that comes with Clarion.
        aliases: further names.
        created: when the file was made, in seconds of Unix.
        n_bytes: what it takes; 0: not known yet.
        model: while it is loaded.
        users: requests that use it now.
        used: when somebody did last, by time.monotonic.
        tally: of its texts.
    """

    name: str
    path: Path | None
    aliases: tuple[str, ...] = ()
    created: int = 0
    n_bytes: int = 0
    model: Model | None = None
    users: int = 0
    used: float = 0.0
    line: Line = field(default_factory=lambda: Line(1, 0))
    tally: Tally = field(default_factory=Tally)
    loading: asyncio.Task[None] | None = None
    is_further: bool = False  # it may go while the server runs
    is_draining: bool = False  # it takes no new users before it was closed


class Further(Protocol):
    """Models that come and go while the server runs."""

    def every(self) -> list[Served]:
        """All of them, as they are now."""
        ...

    def path(self, name: str) -> Path | None:
        """The file that a name means which is none of those of `every`; it may be another one's."""
        ...


class Pool:
    """The models of a server."""

    def __init__(
        self,
        models: Iterable[Served],
        settings: Settings,
        log: Log,
        *,
        loader: Loader,
        memory_bytes: int,
        further: Further | None = None,
        patience: float = 10.0,
    ) -> None:
        """
        Args:
            models: the first one is meant where a request names none.
            memory_bytes: that all loaded models take at most. Unless `settings` have it, a model that takes
                more is loaded alone.
            further: models that come and go.
            patience: seconds for which a load lets busy models take further users before it.
        """
        self._patience = patience
        self._settings = settings
        self._log = log
        self._loader = loader
        self._memory_bytes = memory_bytes
        self._further = further
        self._models: dict[str, Served] = {}
        self._turn = asyncio.Lock()  # of who loads
        self._freed = asyncio.Event()  # a model lost its last user
        self._timers: set[asyncio.Task[None]] = set()
        self._is_closed = False
        for served in models:
            self._add(served)

    # ---- names --------------------------------------------------------------------------------------------

    def all(self) -> list[Served]:
        """Every model that can be asked for."""
        if self._further is not None:
            found = {served.name: served for served in self._further.every()}
            for name, served in found.items():
                if name not in self._models:
                    served.is_further = True
                    self._add(served)
            gone = [
                each
                for each in self._models.values()
                if each.is_further and each.name not in found and each.model is None and each.loading is None
            ]
            for each in gone:
                del self._models[each.name]
        return list(self._models.values())

    def known(self) -> list[Served]:
        """Every model that was asked for or listed before: the folder is not looked at."""
        return list(self._models.values())

    @property
    def memory_bytes(self) -> int:
        """That all loaded models together may take."""
        return self._memory_bytes

    def find(self, name: str | None) -> Served:
        """The model of a name, or of an alias; without a name the first one.

        Raises:
            RefusedError: 404, there is none; the message names near ones.
        """
        if name:
            if (found := self._models.get(name) or self._by_alias(name)) is not None:
                return found
            every = self.all()
            if (found := self._models.get(name) or self._by_alias(name)) is not None:
                return found
            path = self._further.path(name) if self._further is not None else None
            found = next((each for each in every if path is not None and each.path == path), None)
            if found is not None:
                return found
        elif every := self.all():
            return every[0]
        names = [served.name for served in every]
        lower = {known.lower(): known for known in names}
        wanted = (name or "").lower()
        near = [known for short, known in lower.items() if wanted in short or short in wanted][:3]
        near = near or [lower[match] for match in get_close_matches(wanted, lower, 3, 0.4)]
        listed = near or names[:5]
        hint = f"; is it {' or '.join(listed)}?" if near else f"; there are: {', '.join(listed) or 'none'}"
        raise RefusedError(404, f"there is no model {name!r}{hint}", param="model", code="model_not_found")

    def _by_alias(self, name: str) -> Served | None:
        for served in self._models.values():
            if name in served.aliases or name.removesuffix(".gguf") == served.name:
                return served
        return next((served for served in self._models.values() if ALL in served.aliases), None)

    def _add(self, served: Served) -> None:
        settings = self._settings
        served.line = Line(settings.parallel, settings.max_queue)
        self._models[served.name] = served

    # ---- use ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, served: Served, texts: int = 1) -> AsyncIterator[Model]:
        """The model, loaded, with places for so many texts, as long as the block lasts.

        Raises:
            RefusedError: 429: the line is full; 503: the model finds no room; 500: it cannot be loaded.
        """
        async with served.line.place(texts), self.hold(served) as model:
            yield model

    @asynccontextmanager
    async def hold(self, served: Served) -> AsyncIterator[Model]:
        """The model, loaded, for what computes no text and waits in no line. Raises as `use` else."""
        while (model := served.model) is None or served.is_draining:
            await self.load(served)
        served.users += 1
        try:
            yield model
        finally:
            served.users -= 1
            served.used = time.monotonic()
            if served.users == 0:
                self._freed.set()
                self._plan_unloading(served)

    async def load(self, served: Served) -> None:
        """Waits until the model is loaded. Whoever is cancelled leaves the load to go on."""
        if served.loading is None:
            served.loading = asyncio.create_task(self._load(served))
            served.loading.add_done_callback(partial(_forget_load, served))
        await asyncio.shield(served.loading)

    async def _load(self, served: Served) -> None:
        async with self._turn:
            if self._is_closed:
                raise RefusedError(503, "the server ends", code="closing")
            if served.model is not None:
                return  # it was drained for another one, which found its room elsewhere
            try:
                what = (served.path, self._settings, self._memory_bytes)
                needed = await asyncio.to_thread(self._loader.needed_bytes, *what)
                await self._make_room(served, needed)
                model = await asyncio.to_thread(self._loader.load_model, *what)
            except RefusedError:
                raise
            except ClarionError as error:
                raise RefusedError(
                    500, f"the model {served.name!r} cannot be loaded: {error}", code="model_not_loaded"
                ) from error
            served.n_bytes, served.model = needed, model
            served.used = time.monotonic()
            self._plan_unloading(served)
            self._log.say(f"loaded {describe(served)}")

    async def _make_room(self, served: Served, needed: int) -> None:
        """Unloads models that nobody uses, until there is room; waits where all are busy."""
        if needed > self._memory_bytes and self._settings.memory_bytes is not None:
            raise RefusedError(
                503,
                f"the model {served.name!r} takes {size(needed)}, and all models together may take "
                f"{size(self._memory_bytes)} (--memory-bytes)",
                code="out_of_memory",
            )
        if needed > self._memory_bytes:
            # Weights that are mapped may be more than memory: slower, but nobody forbade it.
            self._log.warn(f"{served.name} takes {size(needed)}, more than what is free")
            needed = self._memory_bytes
        deadline = time.monotonic() + self._patience
        drained: list[Served] = []
        try:
            while needed > self._memory_bytes - sum(other.n_bytes for other in self._models.values()):
                idle = [other for other in self._loaded() if other.users == 0]
                if idle:
                    await self._unload(min(idle, key=lambda other: other.used), f"for {served.name}")
                    continue
                if time.monotonic() >= deadline and not drained:
                    drained = self._loaded()
                    for other in drained:
                        other.is_draining = True
                self._freed.clear()
                try:
                    async with asyncio.timeout(None if drained else max(0.0, deadline - time.monotonic())):
                        await self._freed.wait()
                except TimeoutError:
                    continue
        finally:
            for other in drained:
                other.is_draining = False

    def _loaded(self) -> list[Served]:
        return [served for served in self._models.values() if served.model is not None]

    # ---- unloading ----------------------------------------------------------------------------------------

    async def _unload(self, served: Served, why: str) -> None:
        """Closes a model that nobody uses."""
        model, served.model = served.model, None
        assert model is not None
        assert served.users == 0
        served.tally.unloaded(model.figures)
        await to_the_end(model.close)
        served.n_bytes = 0
        self._freed.set()
        self._log.say(f"unloaded {served.name}, {why}")

    def _plan_unloading(self, served: Served) -> None:
        if self._settings.idle_seconds > 0:
            timer = asyncio.create_task(self._unload_if_idle(served))
            self._timers.add(timer)
            timer.add_done_callback(self._timers.discard)

    async def _unload_if_idle(self, served: Served) -> None:
        used = served.used
        await asyncio.sleep(self._settings.idle_seconds)
        if served.used == used and served.users == 0 and served.model is not None:
            await self._unload(served, f"unused for {self._settings.idle_seconds:g} s")

    async def close(self) -> None:
        """Closes all models. What they still compute ends with a ClosedError."""
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        async with self._turn:  # a load that has begun comes to its end
            for served in self._loaded():
                model, served.model = served.model, None
                assert model is not None
                await asyncio.to_thread(model.close)


def _forget_load(served: Served, load: asyncio.Task[None]) -> None:
    served.loading = None
    if not load.cancelled():
        load.exception()  # whoever waited was told, and perhaps nobody waits any more


def describe(served: Served) -> str:
    """A loaded model, in one line."""
    model = served.model
    assert model is not None
    figures = model.figures
    cache = f", a cache of {size(figures.cache_bytes)} for all texts" if figures.cache_bytes else ""
    return (
        f"{served.name}: context of {model.context} tokens{cache}, {size(model.memory_bytes)} in all, "
        f"{model.threads} threads, in {model.load_seconds:.1f} s"
    )


def size(n_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
