"""The line before a model: bounded, fair, and nothing is lost in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.server.errors import RefusedError
from clarion.server.pool import Served
from clarion.server.queue import Line
from tests.server.servers import client, is_idle, post, running, wait_until


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_places_are_given_in_order() -> None:
    async def work() -> None:
        line, order = Line(2, 10), list[int]()

        async def one(number: int, n: int) -> None:
            async with line.place(n):
                order.append(number)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(one(number, n) for number, n in enumerate((1, 1, 2, 1, 9, 1))))
        assert order == [0, 1, 2, 3, 4, 5]
        assert (line.running, line.waiting) == (0, 0)

    run(work())


def test_a_full_line_says_when_to_come_back() -> None:
    async def work() -> None:
        line = Line(1, 1)
        async with line.place():
            waiting = asyncio.create_task(_enter(line))
            await asyncio.sleep(0)
            with pytest.raises(RefusedError) as full:
                await _enter(line)
            assert full.value.status == 429
            assert int(full.value.headers["retry-after"]) >= 1
        await waiting
        assert line.running == 0

    run(work())


async def _enter(line: Line) -> None:
    async with line.place():
        await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**32))
def test_whoever_leaves_takes_nothing_along(places: int, most: int, seed: int) -> None:
    """Requests of any size come, finish and are cancelled in any order: never more texts than places, never
    more in line than are allowed, and in the end all places are free."""
    draw = random.Random(seed)

    async def work() -> None:
        line = Line(places, most)
        inside = 0

        async def one(n: int, steps: int) -> None:
            nonlocal inside
            async with line.place(n):
                inside += min(n, places)
                assert inside <= places
                assert line.waiting <= most
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    inside -= min(n, places)

        tasks = []
        for _ in range(30):
            tasks.append(asyncio.create_task(one(draw.randint(1, places + 1), draw.randint(0, 4))))
            for _ in range(draw.randint(0, 2)):
                await asyncio.sleep(0)
            if draw.random() < 0.4:
                draw.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [
            result
            for result in results
            if not isinstance(result, RefusedError | asyncio.CancelledError | None)
        ]
        assert not wrong
        assert (line.running, line.waiting, inside) == (0, 0, 0)

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_overload_is_429(chat_model: Path, stream: bool) -> None:
    asked = {"prompt": "Once", "max_tokens": 1800, "ignore_eos": True, "stream": stream}
    with running([Served("tale", chat_model)], parallel=1, max_queue=1) as server:
        line = server.server.pool.find("tale").line
        with post(server, "/v1/completions", asked):
            wait_until(lambda: line.running == 1, "it has no place")
            with post(server, "/v1/completions", asked):
                wait_until(lambda: line.waiting == 1, "it does not wait")
                with client(server) as http:
                    answer = http.post("/v1/completions", json=asked)
                assert answer.status_code == 429
                assert int(answer.headers["retry-after"]) >= 1
                error = answer.json()["error"]
                assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        wait_until(lambda: is_idle(server), "something is left")
