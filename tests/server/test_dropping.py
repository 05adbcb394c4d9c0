"""Conversations that are longer than the context: an error, or the oldest messages go, where it is wished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarion.server.pool import Served
from clarion.server.run import Running
from tests.server.servers import client, events, running

CHAT = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "Be brief."}
CONTEXT = 256


def talk(n: int, words: int = 20) -> list[dict[str, Any]]:
    """A system's message, exchanges of so many words, and a question."""
    said: list[dict[str, Any]] = [SYSTEM]
    for i in range(n):
        said.append({"role": "user", "content": f"{i} " + "cat " * words})
        said.append({"role": "assistant", "content": "dog " * words})
    return [*said, {"role": "user", "content": "Who is there?"}]


@pytest.fixture(scope="module")
def strict(chat_model: Path) -> Iterator[Running]:
    with running([Served("tale", chat_model)], context=CONTEXT) as server:
        yield server


@pytest.fixture(scope="module")
def dropping(chat_model: Path) -> Iterator[Running]:
    with running([Served("tale", chat_model)], context=CONTEXT, drop_oldest=True) as server:
        yield server


def ask(server: Running, messages: list[dict[str, Any]], **more: Any) -> Any:
    with client(server) as http:
        return http.post(CHAT, json={"messages": messages, "max_tokens": 4, "temperature": 0, **more})


def n_tokens(server: Running, messages: list[dict[str, Any]]) -> int:
    model = server.server.pool.find("tale").model
    assert model is not None
    return len(model.tokenize_chat(messages))


def test_without_the_wish_it_is_an_error(strict: Running) -> None:
    said = talk(20)
    for more in ({}, {"truncation": "disabled"}, {"stream": True}):
        answer = ask(strict, said, **more)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert f"the prompt has {n_tokens(strict, said)} tokens" in error["message"]
        assert f"maximum context length is {CONTEXT}" in error["message"]
        assert "x-clarion-dropped-messages" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wish", ["server", "request"])
def test_the_oldest_exchanges_go(strict: Running, dropping: Running, wish: str, stream: bool) -> None:
    server, more = (dropping, {}) if wish == "server" else (strict, {"truncation": "auto"})
    said = talk(20)
    if stream:
        more = {**more, "stream": True, "stream_options": {"include_usage": True}}
    answer = ask(server, said, **more)
    assert answer.status_code == 200, answer.text
    n = int(answer.headers["x-clarion-dropped-messages"])
    assert n > 0
    assert n % 2 == 0
    kept = [SYSTEM, *said[1 + n :]]
    one_more = [SYSTEM, *said[n - 1 :]]
    room = 4
    assert n_tokens(server, kept) + room <= CONTEXT < n_tokens(server, one_more) + room
    usage = events(answer.text)[-1]["usage"] if stream else answer.json()["usage"]
    assert usage["dropped_messages"] == n
    assert usage["prompt_tokens"] == n_tokens(server, kept)
    if not stream:
        same = ask(server, kept, truncation="disabled")
        assert same.json()["choices"] == answer.json()["choices"]
        assert "x-clarion-dropped-messages" not in same.headers
        assert "dropped_messages" not in same.json()["usage"]


def test_the_request_has_the_last_word(dropping: Running) -> None:
    assert ask(dropping, talk(20), truncation="disabled").status_code == 400


def test_what_fits_is_left_alone(dropping: Running) -> None:
    answer = ask(dropping, talk(1))
    assert answer.status_code == 200
    assert "x-clarion-dropped-messages" not in answer.headers


def test_a_question_that_is_too_long_alone(dropping: Running) -> None:
    answer = ask(dropping, [*talk(3), {"role": "user", "content": "cat " * 400}])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "x-clarion-dropped-messages" not in answer.headers


def test_other_words_are_named(strict: Running) -> None:
    answer = ask(strict, talk(1), truncation="middle")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "truncation")
