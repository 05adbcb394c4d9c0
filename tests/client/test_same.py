"""A Connection has what a Model has, in the same words, or says why not."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import clarion
from clarion.client.connection import _LOCAL, Connection
from clarion.model import Model
from clarion.server.run import Running
from tests.server.servers import client, events, is_idle, wait_until

# Attributes that are set when one is made, or properties.
ATTRIBUTES = {"path", "context", "n_vocab", "defaults"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_each_method_of_a_model_is_there_or_refused() -> None:
    methods = public(Model) - set(_LOCAL)
    assert methods <= public(Connection)
    assert public(Connection) - methods <= ATTRIBUTES, "what a model does not have"
    assert not set(_LOCAL) & public(Connection)


def test_each_attribute_of_a_model_is_there_or_refused(model: Model, connection: Connection) -> None:
    attributes = {name for name in vars(model) if not name.startswith("_")}
    for name in attributes | public(Model):
        assert name in _LOCAL or hasattr(connection, name), name


def test_signatures_are_the_same() -> None:
    methods = [name for name in public(Model) - set(_LOCAL) if inspect.isfunction(getattr(Model, name))]
    assert {"generate", "achat_stream", "embed", "score", "close"} <= set(methods)
    for name in [*methods, "__enter__", "__exit__", "__repr__", "__reduce_ex__"]:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Connection, Model))
        assert ours.parameters == theirs.parameters, name
        if name != "__enter__":
            assert ours.return_annotation == theirs.return_annotation, name
        kinds = {inspect.iscoroutinefunction(getattr(kind, name)) for kind in (Connection, Model)}
        assert len(kinds) == 1, name


LIGHT = """
import sys
import clarion

clarion.Connection
assert "httpx" not in sys.modules
with clarion.connect(sys.argv[1]) as connection:
    connection.chat([{"role": "user", "content": "Who?"}], max_tokens=2)
    list(connection.stream("Once", max_tokens=2))
heavy = {"numpy", "clarion.runtime.engine", "clarion.plan", "clarion.models", "clarion.host"}
loaded = heavy & set(sys.modules)
assert not loaded, loaded
"""


def test_a_connection_needs_no_engine(server: Running) -> None:
    subprocess.run([sys.executable, "-c", LIGHT, server.url], check=True, timeout=60)


EXITS = """
import sys
import threading
import clarion

connection = clarion.connect(sys.argv[1])
options = {"max_tokens": 400, "ignore_eos": True}
stream = connection.stream("Once", **options)
print(next(stream))
threading.Thread(target=lambda: list(connection.stream("Once", **options)), daemon=True).start()
threading.Thread(target=lambda: connection.generate("Once", **options), daemon=True).start()
"""


def test_a_process_may_exit_with_it(server: Running) -> None:
    """Nothing is printed, whoever still waits, and the server computes no further."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", EXITS, server.url], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    wait_until(lambda: is_idle(server), "the server computes no further")


def test_no_proxy_stands_between_a_machine_and_itself(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with clarion.connect(server.url, retries=0) as found:
        assert found.name == "tale"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"prompt": "Once"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Who?"}]}),
    ],
)
def test_details_are_for_those_who_ask(server: Running, path: str, asked: dict[str, Any]) -> None:
    with client(server) as http:

        def details(**more: Any) -> list[dict[str, Any]]:
            """What the choices of an answer have beside OpenAI's form."""
            answer = http.post(path, json={**asked, "max_tokens": 9, "seed": 1, **more})
            assert "x-clarion-ignored" not in answer.headers
            chunks = events(answer.text) if "stream" in more else [answer.json()]
            return [
                choice["clarion"] for chunk in chunks for choice in chunk["choices"] if "clarion" in choice
            ]

        assert details() == details(stream=True) == details(stream=True, clarion=False) == []
        (whole,) = details(clarion=True)
        assert (len(whole["tokens"]), whole["seed"], whole["finish_reason"]) == (9, 1, "length")
        for how in (True, "whole"):
            *pieces, end = details(stream=True, clarion=how)
            assert {**end, "timings": None} == {**whole, "timings": None}
            assert "".join(piece["text"] for piece in pieces) == whole["text"]
            assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
            if how == "whole":
                assert len(pieces) == 1 or path != "/v1/completions"
        assert http.post(path, json={**asked, "clarion": "some"}).json()["error"]["param"] == "clarion"
