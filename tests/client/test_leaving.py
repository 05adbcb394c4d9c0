"""Whoever leaves ends the computation on the server; many at once do not disturb one another."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import clarion
from clarion.errors import CancelledError, ClosedError, UnreachableError
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.server.servers import is_idle, running, wait_until

LONG: Any = {"max_tokens": 2000, "ignore_eos": True, "seed": 1}
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def server(chat_model: Path) -> Iterator[Running]:
    """One whose texts may be so long that there is time to leave."""
    with running([Served("tale", chat_model)], context=2048) as started:
        yield started


@pytest.fixture(scope="module")
def connection(server: Running) -> Iterator[clarion.Connection]:
    with clarion.connect(server.url) as found:
        yield found


@pytest.fixture(scope="module")
def model(server: Running) -> clarion.Model:
    found = server.server.pool.find("tale").model
    assert found is not None
    return found


def n_running(server: Running) -> int:
    return len(server.server.running)


def test_a_stream_that_is_closed(connection: clarion.Connection, server: Running) -> None:
    with connection.stream(PROMPT, **LONG) as stream:
        first = next(stream)
        assert repr(stream) == "<TextStream, open>"
    wait_until(lambda: is_idle(server), "the server computes no further")
    found = stream.completion
    assert found is not None
    assert found.finish_reason == "cancelled"
    assert found.text.startswith(first)
    assert 0 < len(found.tokens) < 2000
    assert found.seed == 1
    assert found.timings.prompt_tokens == 5
    assert found.timings.generated_tokens == len(found.tokens)
    assert list(stream) == []


def test_cancel_gives_what_there_is(connection: clarion.Connection, server: Running) -> None:
    stream = connection.stream(PROMPT, **LONG)
    pieces = [next(stream), next(stream)]
    assert stream.cancel().text.startswith("".join(pieces))
    assert connection.stream(PROMPT, **LONG).cancel().finish_reason == "cancelled"  # at once
    wait_until(lambda: is_idle(server), "the server computes no further")


def test_the_last_reference(connection: clarion.Connection, server: Running) -> None:
    stream = connection.stream(PROMPT, **LONG)
    next(stream)
    del stream
    gc.collect()
    wait_until(lambda: is_idle(server), "the server computes no further")


def test_another_thread_closes_a_stream(connection: clarion.Connection, server: Running) -> None:
    stream = connection.stream(PROMPT, **LONG)
    threading.Timer(0.05, stream.close).start()
    for _ in stream:
        pass
    assert stream.completion is not None
    wait_until(lambda: is_idle(server), "the server computes no further")


def test_tasks_that_are_cancelled(connection: clarion.Connection, server: Running) -> None:
    prompts = [PROMPT] * 3

    async def leave(started: Any) -> None:
        task = asyncio.ensure_future(started)
        while not n_running(server):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def read(stream: clarion.AsyncTextStream) -> None:
        async for _ in stream:
            pass

    async def every() -> None:
        ask = [{"role": "user", "content": "Who?"}]
        for started in (
            connection.agenerate(PROMPT, **LONG),
            connection.agenerate(prompts, **LONG),
            connection.achat(ask, **LONG),
            read(connection.astream(PROMPT, **LONG)),
            read(connection.achat_stream(ask, **LONG)),
        ):
            await leave(started)
            while not is_idle(server):
                await asyncio.sleep(0.001)
        async with connection.astream(PROMPT, **LONG) as stream:
            await anext(stream)
        assert stream.completion is not None
        assert stream.completion.finish_reason == "cancelled"
        assert (await connection.astream(PROMPT, **LONG).cancel()).finish_reason == "cancelled"

    asyncio.run(asyncio.wait_for(every(), 30))
    wait_until(lambda: is_idle(server), "the server computes no further")


INTERRUPTED = """
import sys
import clarion

connection = clarion.connect(sys.argv[1])
try:
    print("asks", flush=True)
    connection.generate("Once", max_tokens=2000, ignore_eos=True)
except KeyboardInterrupt:
    print("left", flush=True)
    sys.stdin.read()  # the process stays: what ends the computation is not its end
"""


def test_ctrl_c(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], context=2048) as started:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, started.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "asks\n"
            model = started.server.pool.find("tale").model
            assert model is not None
            wait_until(lambda: model.figures.texts_running == 1, "it computes")
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "left\n"
            wait_until(lambda: is_idle(started), "the server computes no further")
            assert model.figures.generated_tokens < 2000
            process.communicate("")
        assert process.returncode == 0


def test_closing_ends_what_is_under_way(server: Running) -> None:
    connection = clarion.connect(server.url)
    ended: list[BaseException] = []

    def generate() -> None:
        try:
            connection.generate([PROMPT] * 2, **LONG)
        except BaseException as error:
            ended.append(error)

    def read() -> None:
        try:
            list(connection.stream(PROMPT, **LONG))
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=what) for what in (generate, read)]
    for thread in threads:
        thread.start()
    wait_until(lambda: n_running(server) == 2, "both are under way")
    connection.close()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in ended] == [ClosedError, ClosedError]
    wait_until(lambda: is_idle(server), "the server computes no further")
    connection.close()
    for call in (connection.generate, connection.stream, connection.embed, connection.tokenize):
        with pytest.raises(ClosedError, match="the connection is closed"):
            call("a")

    async def later() -> None:
        with pytest.raises(ClosedError):
            await connection.agenerate("a")
        with pytest.raises(ClosedError):
            await anext(connection.astream("a"))

    asyncio.run(later())


def n_wires() -> int:
    return sum(thread.name == "clarion-connection" for thread in threading.enumerate())


def test_a_connection_that_is_forgotten(server: Running) -> None:
    before = n_wires()
    connection = clarion.connect(server.url)
    stream = connection.stream(PROMPT, max_tokens=30, ignore_eos=True)
    assert n_wires() == before + 1
    del connection
    gc.collect()
    assert len("".join(stream)) > 0  # a stream keeps it
    assert stream.completion is not None
    assert stream.completion.finish_reason == "length"
    del stream
    gc.collect()
    wait_until(lambda: n_wires() == before, "the thread ends")


def test_a_server_that_ends(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], context=2048, grace_seconds=0) as started:
        connection = clarion.connect(started.url)
        stream = connection.stream(PROMPT, max_tokens=1900, ignore_eos=True)
        next(stream)
        started.end()
        with pytest.raises(clarion.errors.ServerError, match="the server ends"):
            list(stream)
        assert stream.completion is None
    with pytest.raises(UnreachableError):
        connection.generate(PROMPT)
    connection.close()


KILLED = """
import sys
from pathlib import Path
from clarion.server.pool import Served
from clarion.server.run import serve
from clarion.server.settings import Settings

served = Served("tale", Path(sys.argv[1]))
serve([served], Settings(port=0, quiet=True), started=lambda started: print(started.url, flush=True))
"""


def test_a_server_that_is_killed(chat_model: Path) -> None:
    """Half of an answer is never taken for all of it."""
    command = [sys.executable, "-c", KILLED, str(chat_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with clarion.connect(process.stdout.readline().strip(), retries=0) as connection:
                stream = connection.stream(PROMPT, max_tokens=2000, ignore_eos=True)
                whole = ThreadPoolExecutor(1).submit(
                    connection.generate, PROMPT, max_tokens=2000, ignore_eos=True
                )
                next(stream)
                time.sleep(0.1)
                process.kill()
                with pytest.raises(UnreachableError):
                    list(stream)
                assert stream.completion is None
                with pytest.raises(UnreachableError):
                    whole.result(20)
        finally:
            process.kill()


def test_twenty_threads(connection: clarion.Connection, model: clarion.Model, server: Running) -> None:
    def use(seed: int) -> object:
        options: Any = {"max_tokens": 12, "seed": seed, "temperature": 1.3}
        match seed % 5:
            case 0:
                return connection.generate(PROMPT, **options).text
            case 1:
                return "".join(connection.stream(PROMPT, **options))
            case 2:
                return asyncio.run(connection.agenerate(PROMPT, **options)).text
            case 3:
                with connection.stream(PROMPT, **{**options, "max_tokens": 2000}) as stream:
                    next(stream)
                return None
            case _:
                return connection.embed(f"the cat {seed}").tolist()

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(use, range(100)))
    for seed, each in enumerate(found):
        if seed % 5 < 3:
            expected = model.generate(PROMPT, max_tokens=12, seed=seed, temperature=1.3).text
            assert each == expected
        elif seed % 5 == 4:
            assert each == model.embed(f"the cat {seed}").tolist()
    wait_until(lambda: is_idle(server), "nothing is left")


def test_connections_are_used_again(chat_model: Path) -> None:
    """Also after a stream."""
    with (
        running([Served("tale", chat_model)], context=256) as started,
        clarion.connect(started.url) as connection,
    ):
        for _ in range(5):
            list(connection.stream("Once", max_tokens=3))
            connection.generate("Once", max_tokens=3)
        pool = connection._wire.http._client._transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1


def test_an_error_that_ends_a_stream_is_told_by_cancel(connection: clarion.Connection) -> None:
    stream = connection.stream("cat " * 2100)
    with pytest.raises(clarion.errors.ContextError):
        next(stream)
    with pytest.raises((clarion.errors.ContextError, CancelledError)):
        stream.cancel()


def test_a_text_may_take_longer_than_the_timeout(chat_model: Path) -> None:
    """The server says that it computes."""
    with (
        running([Served("tale", chat_model)], context=2048, keep_alive_seconds=0.05) as started,
        clarion.connect(started.url, timeout=0.5) as connection,
    ):
        began = time.monotonic()
        found = connection.generate([PROMPT] * 12, max_tokens=2000, ignore_eos=True)
        assert [len(each.tokens) for each in found] == [2000] * 12
        assert time.monotonic() - began > 0.5, "the texts are too short to test anything"
