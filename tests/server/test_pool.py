"""Several models: loaded on demand, evicted by bytes, never while somebody uses them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.errors import FileError
from clarion.loading import needed_bytes
from clarion.model import Model
from clarion.runtime.figures import Figures
from clarion.server.errors import RefusedError
from clarion.server.log import Log
from clarion.server.names import Folder, served
from clarion.server.pool import Pool, Served
from clarion.server.settings import Settings
from tests.end_to_end.files import BUILT_IN
from tests.server.servers import client, running, wait_until, with_template


class FakeModel:
    """Knows whether it was closed."""

    context, threads, load_seconds, memory_bytes = 1, 1, 0.0, 1

    def __init__(self, name: str, loader: Loader) -> None:
        self.name, self.loader, self.is_closed = name, loader, False

    @property
    def figures(self) -> Any:
        return Figures()

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        self.loader.used -= self.loader.sizes[self.name]


class Loader:
    """Loads models that take so many bytes, and never more than `most` at a time."""

    def __init__(self, sizes: dict[str, int], most: int) -> None:
        self.sizes, self.most = sizes, most
        self.used = 0
        self.is_loading = False
        self.loaded: list[str] = []
        self.gate: Callable[[], None] | None = None

    def needed_bytes(self, path: Path | None, settings: Settings, memory_bytes: int) -> int:
        return self.sizes[str(path)]

    def load_model(self, path: Path | None, settings: Settings, memory_bytes: int) -> Model:
        assert not self.is_loading, "two loads at once"
        self.is_loading = True
        try:
            if self.gate is not None:
                self.gate()
            if str(path) == "broken":
                raise FileError("broken: it is no model")
            self.used += self.sizes[str(path)]
            assert self.used <= self.most, "more bytes than there are"
            self.loaded.append(str(path))
            return cast(Model, FakeModel(str(path), self))
        finally:
            self.is_loading = False


def pool_of(loader: Loader, **more: Any) -> Pool:
    patience = more.pop("patience", 10.0)
    models = [Served(name, Path(name)) for name in loader.sizes]
    told = Settings(**{"memory_bytes": loader.most, "quiet": True, **more})
    return Pool(models, told, Log(quiet=True), loader=loader, memory_bytes=loader.most, patience=patience)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def use(pool: Pool, name: str, seconds: float = 0.0) -> None:
    async with pool.use(pool.find(name)) as model:
        assert cast(FakeModel, model).name == name
        await asyncio.sleep(seconds)
        assert not cast(FakeModel, model).is_closed


def test_the_longest_unused_makes_room() -> None:
    async def work() -> None:
        loader = Loader({"a": 4, "b": 4, "c": 4}, 10)
        pool = pool_of(loader)
        for name in ("a", "b", "a", "c", "a", "b"):
            await use(pool, name)
        assert loader.loaded == ["a", "b", "c", "b"]
        await pool.close()
        assert loader.used == 0

    run(work())


def test_many_ask_at_once() -> None:
    async def work() -> None:
        loader = Loader({"a": 1}, 10)
        pool = pool_of(loader)
        await asyncio.gather(*(use(pool, "a") for _ in range(20)))
        assert loader.loaded == ["a"]

    run(work())


def test_a_busy_model_is_waited_for() -> None:
    async def work() -> None:
        loader = Loader({"a": 6, "b": 6}, 10)
        pool = pool_of(loader)
        busy = asyncio.create_task(use(pool, "a", 0.2))
        await asyncio.sleep(0.1)
        await use(pool, "b")
        assert busy.done()
        await busy

    run(work())


def test_one_that_is_always_busy_gives_way() -> None:
    """Its next users stand behind whoever waits for its room."""

    async def work() -> None:
        loader = Loader({"a": 6, "b": 6}, 10)
        pool = pool_of(loader, patience=0.05)
        ends = False

        async def again_and_again(first: float) -> None:
            await use(pool, "a", first)
            while not ends:
                await use(pool, "a", 0.02)

        users = [asyncio.create_task(again_and_again(first)) for first in (0.02, 0.03)]
        await asyncio.sleep(0.05)
        await use(pool, "b")
        ends = True
        await asyncio.gather(*users)
        assert loader.loaded[:2] == ["a", "b"]

    run(work())


def test_what_never_fits_is_refused() -> None:
    async def work() -> None:
        pool = pool_of(Loader({"a": 4, "big": 40}, 10))
        with pytest.raises(RefusedError, match="all models together may take") as found:
            await use(pool, "big")
        assert found.value.status == 503
        await use(pool, "a")

    run(work())


def test_a_model_that_cannot_be_loaded() -> None:
    async def work() -> None:
        loader = Loader({"broken": 4, "a": 4}, 10)
        pool = pool_of(loader)
        results = await asyncio.gather(*(use(pool, "broken") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, RefusedError) and result.status == 500 for result in results)
        assert "it is no model" in str(results[0])
        await use(pool, "a")
        assert loader.loaded == ["a"]

    run(work())


def test_who_leaves_during_a_load_leaves_alone() -> None:
    async def work() -> None:
        import threading

        loader, gate = Loader({"a": 4}, 10), threading.Event()
        loader.gate = lambda: cast(None, gate.wait(30))
        pool = pool_of(loader)
        leaving, staying = (asyncio.create_task(use(pool, "a")) for _ in range(2))
        await asyncio.sleep(0.05)
        leaving.cancel()
        gate.set()
        await staying
        assert leaving.cancelled()
        assert loader.loaded == ["a"]
        assert pool.find("a").line.running == 0

    run(work())


def test_idle_models_are_unloaded() -> None:
    async def work() -> None:
        loader = Loader({"a": 4}, 10)
        pool = pool_of(loader, idle_seconds=0.1)
        await use(pool, "a", 0.3)  # in use is not idle
        assert loader.used == 4
        await asyncio.sleep(0.4)
        assert loader.used == 0
        await use(pool, "a")
        assert loader.loaded == ["a", "a"]
        await pool.close()

    run(work())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_any_users_of_any_models(seed: int) -> None:
    """Users come, stay and are cancelled as they like: the fakes check bytes, loads and use."""
    draw = random.Random(seed)

    async def work() -> None:
        sizes = {name: draw.randint(1, 6) for name in "abcde"}
        loader = Loader(sizes, draw.randint(6, 12))
        pool = pool_of(
            loader, patience=0.01, parallel=draw.randint(1, 3), idle_seconds=draw.choice([0, 0.003])
        )
        tasks = []
        for _ in range(40):
            tasks.append(asyncio.create_task(use(pool, draw.choice("abcde"), draw.random() * 0.01)))
            await asyncio.sleep(draw.random() * 0.002)
            if draw.random() < 0.2:
                draw.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [found for found in results if not isinstance(found, asyncio.CancelledError | None)]
        assert not wrong
        await pool.close()
        assert loader.used == 0

    run(work())


def test_names() -> None:
    pool = pool_of(Loader({"Qwen3-8B-Q4_K_M": 1, "gemma-3-4b": 1, "llama": 1}, 10))
    pool.find("llama").aliases = ("default",)
    assert pool.find("default").name == pool.find("llama.gguf").name == "llama"
    assert pool.find(None).name == pool.find("").name == "Qwen3-8B-Q4_K_M"
    for wrong, near in (
        ("qwen3", "is it Qwen3"),
        ("gemma-3-4", "is it gemma-3-4b"),
        ("zzz", "there are: Qwen3"),
    ):
        with pytest.raises(RefusedError, match=near) as found:
            pool.find(wrong)
        assert (found.value.status, found.value.param) == (404, "model")
    pool.find("llama").aliases = ("*",)
    assert pool.find("gpt-4o").name == "llama"


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.gguf", "more/a.gguf", "more/b-00001-of-00002.gguf", "more/b-00002-of-00002.gguf",
                 "mmproj-a.gguf", "notes.txt"):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    assert [each.name for each in Folder(str(tmp_path)).every()] == ["a", "more/a", "b"]
    with pytest.raises(FileError, match="expected a folder"):
        Folder(str(tmp_path / "nowhere"))
    with pytest.raises(FileError, match="nowhere"):
        served([str(tmp_path / "nowhere.gguf")], [])


def test_a_server_of_a_folder(tmp_path: Path) -> None:
    """Real models; one that comes later is found; two do not fit together."""
    with_template(tmp_path / "one.gguf")
    with_template(tmp_path / "two.gguf")
    sizes: Any = {"cache_bytes": 32 << 20, "context": 256}
    most = needed_bytes(BUILT_IN, outputs=4, **sizes) * 3 // 2
    told = {"memory_bytes": most, "parallel": 4, **sizes}
    with running([], further=Folder(str(tmp_path)), **told) as server, client(server) as http:

        def loaded() -> list[str]:
            return [found["id"] for found in http.get("/v1/models").json()["data"] if found["is_loaded"]]

        def ask(model: str) -> int:
            return http.post(
                "/v1/completions", json={"model": model, "prompt": "x", "max_tokens": 1}
            ).status_code

        assert loaded() == []
        assert ask("one") == 200
        assert loaded() == ["one"]
        with_template(tmp_path / "three.gguf")
        for name in ("two", "three", "one"):
            assert ask(name) == 200
            wait_until(lambda name=name: loaded() == [name], "the other one is still there")  # type: ignore[misc]
        assert ask("four") == 404
