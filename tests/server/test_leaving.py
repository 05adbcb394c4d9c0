"""A client that leaves ends what is computed for it, at every stage; one that does not read, too."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from clarion.model import Model
from clarion.server.openai.embeddings import AT_ONCE
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.real_models import smollm2
from tests.server.servers import client, events, is_idle, post, running, wait_until, with_template

TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
# Two seconds of a processor in which nothing is written, as many as a template may have.
SLOW = (
    "{% for a in range(30000) %}{% for b in range(30000) %}{% set c = a * b %}{% endfor %}{% endfor %}"
    "{{ messages[0].content }}"
)
N = 1800  # tokens of a text that takes long enough to be left


@pytest.fixture(scope="module")
def one_place(chat_model: Path) -> Iterator[Running]:
    with running([Served("tale", chat_model)], parallel=1) as server:
        yield server


@pytest.fixture(scope="module")
def wide(chat_model: Path) -> Iterator[Running]:
    with running([Served("tale", chat_model)]) as server:
        yield server


def model_of(server: Running, name: str = "tale") -> Model:
    found = server.server.pool.find(name).model
    assert found is not None
    return found


def long(**more: Any) -> dict[str, Any]:
    return {"prompt": "Once upon a time", "max_tokens": N, "ignore_eos": True, **more}


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 3}, {"n": 3, "stream": True}])
def test_in_the_text(wide: Running, more: dict[str, Any]) -> None:
    model = model_of(wide)
    before = model.figures.generated_tokens
    with post(wide, TEXT, long(**more)) as connection:
        if more.get("stream"):
            assert connection.recv(10).startswith(b"HTTP/1.1")
        wait_until(lambda: model.figures.generated_tokens > before, "the model does not begin")
    wait_until(lambda: is_idle(wide), "it computes on")
    assert model.figures.generated_tokens - before < N * more.get("n", 1)
    with client(wide) as http:
        assert http.post(TEXT, json={"prompt": "Once", "max_tokens": 1}).status_code == 200


def test_in_the_line(one_place: Running) -> None:
    line = one_place.server.pool.find("tale").line
    with post(one_place, TEXT, long()) as first:
        wait_until(lambda: line.running == 1, "the first one has no place")
        with post(one_place, TEXT, long(stream=True)):
            wait_until(lambda: line.waiting == 1, "the second one does not wait")
        wait_until(lambda: line.waiting == 0, "who left still waits")
        assert line.running == 1
        first.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: is_idle(one_place), "it computes on")


def test_in_the_template(tmp_path: Path) -> None:
    with running([Served("slow", with_template(tmp_path / "slow.gguf", SLOW))], parallel=1) as server:
        line = server.server.pool.find("slow").line
        with post(server, CHAT, {"messages": HELLO}):
            wait_until(lambda: line.running == 1, "it has no place")
        # The start makes the template ready too, and uses the model for as long.
        wait_until(lambda: not server.server.running and line.running == 0, "it computes on", 1.5)
        assert model_of(server, "slow").figures.prompt_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
def test_in_the_prompt(stream: bool) -> None:
    with running([Served("smol", smollm2())], context=8192) as server:
        model = model_of(server, "smol")
        prompt = "The miller had three sons, and a mill. " * 700
        n = len(model.tokenize(prompt))
        with post(server, TEXT, {"prompt": prompt, "max_tokens": 50, "stream": stream}):
            wait_until(lambda: model.figures.prompt_tokens > 0, "the model does not begin")
        wait_until(lambda: is_idle(server), "it computes on")
        assert model.figures.prompt_tokens < n - 1000
        assert model.figures.generated_tokens == 0


def test_while_the_prompt_is_echoed(server: Running) -> None:
    model = model_of(server)
    prompts = [f"{i} times the king and his wife went to the sea " * 12 for i in range(300)]
    before = model.figures.prompt_tokens
    with post(server, TEXT, {"prompt": prompts, "max_tokens": 0, "echo": True, "logprobs": 0}):
        wait_until(lambda: model.figures.prompt_tokens > before, "the model does not begin")
    wait_until(lambda: is_idle(server), "it computes on")
    assert model.figures.prompt_tokens - before < sum(len(model.tokenize(text)) for text in prompts)


def test_while_vectors_are_computed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slice of texts that is being computed comes to its end; no other begins."""
    model = model_of(server)
    embed, n_calls = model.embed, 0

    def counted(texts: Any, **more: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        return embed(texts, **more)

    monkeypatch.setattr(model, "embed", counted)
    texts = [f"{i} " + "the cat and the mouse " * 40 for i in range(AT_ONCE * 50)]
    with post(server, "/v1/embeddings", {"input": texts}):
        wait_until(lambda: n_calls == 1, "it does not begin")
    wait_until(lambda: is_idle(server), "it computes on")
    assert n_calls < 50
    with client(server) as http:
        found = http.post("/v1/embeddings", json={"input": texts[: AT_ONCE + 1]}).json()["data"]
    assert [each["index"] for each in found] == list(range(AT_ONCE + 1))


def test_half_a_request(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/comp")
    with client(server) as http:
        assert http.get("/v1/models").status_code == 200
    wait_until(lambda: is_idle(server), "something is left")


def test_who_does_not_read_is_left(chat_model: Path) -> None:
    asked = long(stream=True, logprobs=100, n=8)
    with running([Served("tale", chat_model)], stall_seconds=0.5) as server:
        model = model_of(server)
        with post(server, TEXT, asked) as connection:
            wait_until(lambda: model.figures.texts_running > 0, "the model does not begin")
            # Others are not held back by it.
            with client(server) as http:
                assert http.post(TEXT, json={"prompt": "Once", "max_tokens": 5}).status_code == 200
            wait_until(lambda: is_idle(server), "who does not read is waited for")
            received = b""
            with suppress(ConnectionResetError):  # closed at once, with what was not read
                while data := connection.recv(1 << 20):
                    received += data
            assert received.startswith(b"HTTP/1.1 200")
            assert not received.endswith(b"0\r\n\r\n")


def test_a_slow_reader_gets_everything(chat_model: Path) -> None:
    asked = long(stream=True, logprobs=100, max_tokens=600, temperature=0)
    with running([Served("tale", chat_model)], stall_seconds=2.0) as server:
        expected = model_of(server).generate("Once upon a time", max_tokens=600, greedy=True, ignore_eos=True)
        received = b""
        with client(server) as http, http.stream("POST", TEXT, json=asked) as answer:
            for part in answer.iter_raw(20_000):
                received += part
                time.sleep(0.005)
        found = events(received.decode())
        assert "".join(choice["text"] for event in found for choice in event["choices"]) == expected.text
        tokens = [token for event in found for choice in event["choices"] if choice["logprobs"]
                  for token in choice["logprobs"]["tokens"]]  # fmt: skip
        assert len(tokens) == 600
        wait_until(lambda: is_idle(server), "something is left")


def test_comments_keep_a_stream_alive() -> None:
    with running([Served("smol", smollm2())], context=8192, keep_alive_seconds=0.1) as server:
        prompt = "The miller had three sons, and a mill. " * 300
        with client(server) as http:
            found = http.post(CHAT, json={"messages": [{"role": "user", "content": prompt}], "max_tokens": 2,
                                          "stream": True}).text  # fmt: skip
    assert found.count(": the model computes\n\n") >= 2
    assert events(found)[0]["choices"][0]["delta"]["role"] == "assistant"


def test_many_who_leave(server: Running) -> None:
    """Clients that leave at any moment leave nothing, and hold nobody back."""

    def leave(number: int) -> None:
        more = {"stream": number % 2 == 0, "n": 1 + number % 3, "seed": number}
        with post(server, TEXT, long(max_tokens=300, **more)):
            time.sleep(number % 13 / 300)

    threads = [threading.Thread(target=leave, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    with client(server) as http:
        answer = http.post(TEXT, json={"prompt": "Once", "max_tokens": 5, "temperature": 0})
    assert (
        answer.json()["choices"][0]["text"]
        == model_of(server).generate("Once", max_tokens=5, greedy=True).text
    )
    for thread in threads:
        thread.join()
    wait_until(lambda: is_idle(server), "something is left")
