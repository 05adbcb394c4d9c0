"""What goes wrong arrives as the error that it is."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import clarion
from clarion.client import http as over_http
from clarion.errors import (
    AccessError,
    ClarionError,
    ClosedError,
    ContextError,
    NameNotFoundError,
    OverloadedError,
    ParameterError,
    PicklingError,
    ServerError,
    TemplateError,
    TokenizerError,
    UnreachableError,
    UnsupportedError,
)
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.client.standin import MODELS, Answer, StandIn, events, standing_in, whole
from tests.end_to_end.files import BUILT_IN
from tests.server.servers import running

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Who is at the door?"}]


@pytest.fixture
def other() -> Iterator[StandIn]:
    with standing_in() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_http, "_FIRST_PAUSE", 0.001)


# Of each call, what a model raises, and what a connection does.
CALLS: dict[str, Callable[[Any], object]] = {
    "option": lambda m: m.generate("a", temperature=-1),
    "unknown option": lambda m: m.generate("a", temprature=1),
    "kind of an option": lambda m: m.generate("a", stop=5.5),
    "token of an option": lambda m: m.generate("a", logit_bias={4096: 1.0}),
    "token": lambda m: m.generate([5, 4096]),
    "no token": lambda m: m.generate([5, "a"]),
    "nothing": lambda m: m.generate([]),
    "kind of a prompt": lambda m: m.generate(5),
    "conversation as a prompt": lambda m: m.generate(ASK),
    "half a character": lambda m: m.generate("a\ud800"),
    "progress": lambda m: m.generate("a", progress=5),
    "several to be streamed": lambda m: m.stream(["a", "b"]),
    "role": lambda m: m.chat([{"content": "a"}]),
    "content": lambda m: m.chat([{"role": "user", "content": 5}]),
    "no messages": lambda m: m.chat([]),
    "variables": lambda m: m.chat(ASK, variables={"tools": []}),
    "variables' kind": lambda m: m.chat(ASK, variables=[5]),
    "score first": lambda m: m.score([5, 6], first=0),
    "score top": lambda m: m.score([5, 6], top=-1),
    "score token": lambda m: m.score([5, 4096]),
    "score too long": lambda m: m.score([5] * 513),
    "score logprobs": lambda m: m.score("a"),
    "pooling": lambda m: m.embed("a", pooling="none"),
    "vector's prompt": lambda m: m.embed("a", prompt="query"),
    "dimensions": lambda m: m.embed("a", dimensions=0),
    "vector of nothing": lambda m: m.embed([[]]),
    "vector too long": lambda m: m.embed(["a", "cat " * 600]),
    "no classifier": lambda m: m.rerank("a", ["b"]),
    "query": lambda m: m.rerank(5, ["b"]),
    "documents": lambda m: m.rerank("a", "b"),
    "long prompt": lambda m: m.generate("cat " * 600),
    "long stream": lambda m: list(m.stream("cat " * 600)),
    "long list": lambda m: m.generate(["cat", "cat " * 600]),
    "long conversation": lambda m: m.chat([{"role": "user", "content": "cat " * 600}]),
}
# Of these the server's words are its own.
OTHER_WORDS = {
    *("long prompt", "long stream", "long list", "long conversation"),
    *("half a character", "pooling", "vector of nothing"),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_are_those_of_a_model(connection: clarion.Connection, model: clarion.Model, name: str) -> None:
    with pytest.raises(ClarionError) as there:
        CALLS[name](model)
    with pytest.raises(ClarionError) as here:
        CALLS[name](connection)
    assert type(here.value) is type(there.value)
    if name not in OTHER_WORDS:
        assert str(here.value) == str(there.value)


def test_errors_of_an_event_loop(connection: clarion.Connection) -> None:
    async def asked() -> None:
        with pytest.raises(ContextError, match="maximum context length is 512"):
            await connection.agenerate("cat " * 600)
        with pytest.raises(ParameterError, match="temperature: found -1"):
            await connection.achat(ASK, temperature=-1)
        for stream in (connection.astream("cat " * 600), connection.achat_stream(ASK, template="{{ x }}")):
            with pytest.raises((ContextError, UnsupportedError)):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    asyncio.run(asked())


def test_a_model_without_a_template() -> None:
    with running([Served("bare", BUILT_IN)], context=128) as started, clarion.connect(started.url) as bare:
        with pytest.raises(TemplateError, match="no chat template"):
            bare.chat(ASK)
        with pytest.raises(TemplateError, match="no chat template"):
            list(bare.chat_stream(ASK))


def test_what_only_a_loaded_model_has(connection: clarion.Connection) -> None:
    for name in ("logits", "each_logits", "program", "tokenizer", "metadata", "figures", "settle"):
        with pytest.raises(UnsupportedError, match=f"{name}: a model on a server does not offer it"):
            getattr(connection, name)
    with pytest.raises(AttributeError, match="no attribute 'genrate'"):
        connection.genrate  # type: ignore[attr-defined]  # noqa: B018


def test_a_key(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], context=128, api_keys=("secret",)) as started:
        with pytest.raises(AccessError, match="expected a key of this server") as none:
            clarion.connect(started.url)
        assert none.value.status == 401
        with pytest.raises(AccessError, match="found another one"):
            clarion.connect(started.url, api_key="guess")
        with clarion.connect(started.url, api_key="secret") as connection:
            assert connection.generate("Once", max_tokens=2).tokens


def test_names(server: Running) -> None:
    with pytest.raises(NameNotFoundError, match="there is no model 'tail'; is it tale"):
        clarion.connect(server.url, model="tail")


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=r"has said nothing for 0\.2 s"):
            clarion.connect(url, timeout=0.2)  # it accepts, and says nothing
    with pytest.raises(UnreachableError, match="cannot be reached"):
        clarion.connect(url)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": ""}, "url: found ''"),
        ({"url": 5}, "url: found 5"),
        ({"url": "ftp://a"}, "url: found 'ftp://a'"),
        ({"url": "http://"}, "expected an address such as"),
        ({"url": "http://a:port"}, "expected an address such as"),
        ({"url": "http://a b"}, "expected an address such as"),
        ({"url": "a", "timeout": 0}, "timeout: found 0"),
        ({"url": "a", "timeout": "5"}, "timeout: found '5'"),
        ({"url": "a", "retries": -1}, "retries: found -1"),
        ({"url": "a", "api_key": ""}, "api_key: found one that is empty"),
        ({"url": "a", "api_key": "schlüssel"}, "api_key: found one that is empty, or has"),
        ({"url": "a", "model": 5}, "model: found 5"),
    ],
)
def test_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        clarion.connect(**arguments)


def connect(other: StandIn, **how: Any) -> clarion.Connection:
    """To the stand-in, which says that it is one of Clarion's."""
    listed = {"data": [{**MODELS["data"][0], "owned_by": "clarion"}]}  # type: ignore[index]
    other.says("/v1/models", whole(listed))
    return clarion.connect(other.url, **how)


DETAILS = {
    "text": "a",
    "tokens": [5],
    "finish_reason": "length",
    "stopped_by": None,
    "logprobs": None,
    "seed": 1,
    "timings": {
        "prompt_tokens": 1,
        "reused_tokens": 0,
        "generated_tokens": 1,
        "waiting": 0,
        "prompt": 0,
        "generation": 0,
    },
}
WHOLE = {"choices": [{"index": 0, "text": "a", "finish_reason": "length", "clarion": DETAILS}]}
PIECE = {
    "choices": [
        {
            "index": 0,
            "text": "a",
            "clarion": {"text": "a", "tokens": [5], "logprobs": None, "prompt_tokens": 1},
        }
    ]
}
BUSY = {"error": {"message": "the line is full", "code": "queue_full"}}


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(other: StandIn, status: int) -> None:
    path = "/v1/completions"
    with connect(other) as connection:
        busy = whole(BUSY, status=status)
        other.says(path, busy, busy, events(WHOLE))
        assert connection.generate("a").text == "a"
        other.says(path, busy, events(PIECE, WHOLE))
        assert "".join(connection.stream("a")) == "a"
        first, *rest = other.fields(path)
        assert first["clarion"] == "whole"
        assert rest[:2] == [first, first]
        other.says(path, busy, busy, busy)
        with pytest.raises(OverloadedError, match="the line is full") as end:
            connection.generate("a")
        assert end.value.status == status
        assert len(other.fields(path)) == 8
    with connect(other, retries=0) as connection:
        other.says(path, busy)
        with pytest.raises(OverloadedError):
            connection.generate("a")


def test_the_server_says_when_to_come_again(other: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(over_http, "asyncio", SimpleNamespace(sleep=sleep, timeout=asyncio.timeout))
    with connect(other, retries=3) as connection:
        monkeypatch.setattr(over_http, "_FIRST_PAUSE", 4.0)
        for seconds in ("7", "600", "Thu, 01 Jan 2026 00:00:00 GMT"):
            other.says("/v1/completions", whole(BUSY, status=429, headers={"retry-after": seconds}))
        other.says("/v1/completions", events(WHOLE))
        connection.generate("a")
    assert slept[:2] == [7, 30]
    assert 12 <= slept[2] <= 16


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_stream_that_ends_in_its_middle(other: StandIn, is_cut: bool) -> None:
    with connect(other) as connection:
        other.says("/v1/completions", events(PIECE, PIECE, done=False, is_cut=is_cut))
        stream = connection.stream("a", max_tokens=5)
        assert [next(stream), next(stream)] == ["a", "a"]
        with pytest.raises(UnreachableError, match="middle"):
            next(stream)
        assert stream.completion is None
        assert len(other.fields("/v1/completions")) == 1
        other.says("/v1/completions", events(PIECE, done=False, is_cut=is_cut))
        with pytest.raises(UnreachableError, match="middle"):
            connection.generate("a")
    with clarion.connect(other.url) as connection:
        other.says("/v1/completions", Answer([b'{"choices":'], is_cut=True))
        with pytest.raises(UnreachableError, match="broke in the middle"):
            connection.generate("a")


def test_an_error_in_the_middle_of_a_stream(other: StandIn) -> None:
    with connect(other) as connection:
        gone = {"error": {"message": "the model is closed"}, "clarion": "ClosedError"}
        for error, kind in ((gone, ClosedError), ({"error": "gone"}, ServerError)):
            other.says("/v1/completions", events(PIECE, error))
            stream = connection.stream("a")
            assert next(stream) == "a"
            with pytest.raises(kind):
                next(stream)


def test_a_slow_server(other: StandIn) -> None:
    with connect(other, timeout=0.3) as connection:
        slow = events(PIECE, WHOLE, waits=5.0)
        other.says("/v1/completions", slow)
        with pytest.raises(UnreachableError, match=r"has said nothing for 0\.3 s"):
            list(connection.stream("a"))
        other.says("/v1/completions", slow)
        with pytest.raises(UnreachableError, match=r"has said nothing for 0\.3 s"):
            connection.generate("a")
        # A comment shows that it is there.
        alive = Answer([b": computing\n\n"] * 8, headers={"content-type": "text/event-stream"}, waits=0.1)
        alive.parts = [*alive.parts, *events(PIECE, WHOLE).parts]
        other.says("/v1/completions", alive, alive)
        assert "".join(connection.stream("a")) == "a"
        assert connection.generate("a").text == "a"
    with clarion.connect(other.url, timeout=0.3) as connection:
        other.says("/v1/completions", Answer([b"{}"], waits=5.0))
        with pytest.raises(UnreachableError, match=r"has said nothing for 0\.3 s"):
            connection.generate("a")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer([b"<html>hello"]), "expected an answer in JSON"),
        (whole([]), "none of this endpoint"),
        (whole({"choices": []}), "0 texts, expected 1"),
        (whole({"choices": [{"index": 0}]}), "none of this endpoint"),
        (whole({"choices": [{"index": 0, "text": 5}]}), "none of this endpoint"),
        (Answer([b"<html>"], status=502), "<html>"),
        (Answer(status=500), "status 500"),
        (Answer(status=307, headers={"location": "http://x/"}), "the server is at http://x/"),
    ],
)
def test_answers_that_are_none(other: StandIn, answer: Answer, message: str) -> None:
    with clarion.connect(other.url) as connection:
        other.says("/v1/completions", answer)
        with pytest.raises(ServerError, match=message):
            connection.generate("a")


def test_streams_that_are_none(other: StandIn) -> None:
    with connect(other) as connection:
        for answer, message in (
            (whole(WHOLE), "expected text/event-stream"),
            (events("a"), "expected an object of JSON"),
            (Answer([b"data: {\n\n"], headers={"content-type": "text/event-stream"}), "expected an object"),
            (events({"choices": [{"index": 0, "clarion": {"text": 5}}]}), "none of this endpoint"),
            (events({"choices": [{"index": 0, "clarion": {"timings": 5}}]}), "none of this endpoint"),
            (events({"choices": [{"index": 0, "text": "a"}]}), "ends in its middle"),
        ):
            other.says("/v1/completions", answer, answer)
            with pytest.raises(ServerError, match=message):
                list(connection.stream("a"))
            with pytest.raises(ServerError, match=message):
                connection.generate("a")


def test_what_a_server_does_not_look_at_is_no_answer(other: StandIn) -> None:
    with connect(other) as connection:
        older = events(WHOLE, headers={"x-clarion-ignored": "min_p, top_k"})
        other.says("/v1/completions", older, older)
        for call in (
            connection.generate,
            lambda *given, **options: list(connection.stream(*given, **options)),
        ):
            with pytest.raises(UnsupportedError, match="min_p, top_k: this server does not know it"):
                call("a", min_p=0.1, top_k=5)
        chunk = {"choices": [{"index": 0, "delta": {}, "clarion": DETAILS}]}
        other.says("/v1/chat/completions", events(chunk, headers={"x-clarion-ignored": "tools"}))
        tools = [{"type": "function", "function": {"name": "f"}}]
        with pytest.warns(UserWarning, match="the model is not told of them"):
            assert connection.chat(ASK, tools=tools).text == "a"


def test_half_a_character(connection: clarion.Connection) -> None:
    with pytest.raises(TokenizerError, match="half a surrogate pair"):
        connection.chat([{"role": "user", "content": "a\udc00"}])
    with pytest.raises(ParameterError, match="cannot be sent as JSON"):
        connection.chat([{"role": "user", "content": "a", "what": object()}])


def test_it_stays_in_its_process(connection: clarion.Connection) -> None:
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(PicklingError, match="pass on its url"):
            copied(connection)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            connection.generate("a")
        except ClosedError as error:
            os.write(writing, str(error).encode())
            connection.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert b"another process" in os.read(reading, 1000)
    os.close(reading)
    assert connection.generate("a", max_tokens=1).tokens
