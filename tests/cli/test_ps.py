"""`clarion ps` against servers, and against what is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clarion.cli.main import execute
from clarion.gguf.texts import size_text
from clarion.server.pool import Served
from tests.server.servers import client, running, wait_until, with_template


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tmp_path_factory.mktemp("ps") / "tale.gguf")


def test_what_is_loaded(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [Served("tale", path), Served("a\x1b[31mb", path)]
    with running(models, context=256, parallel=4, idle_seconds=500.0, api_keys=("k",)) as server:
        model = server.server.pool.find("tale").model
        assert model is not None
        with client(server, headers={"x-api-key": "k"}) as http:
            asked = {"model": "a\x1b[31mb", "prompt": "x", "max_tokens": 1}
            assert http.post("/v1/completions", json=asked).is_success
        assert execute(["ps", "--url", server.url, "--api-key", "k"]) == 0
        head, tale, other = capsys.readouterr().out.splitlines()
        assert head.split() == ["NAME", "SIZE", "CONTEXT", "RUNNING", "WAITING", "UNLOADED", "IN"]
        assert tale.split()[0] == "tale"
        assert size_text(model.memory_bytes) in tale
        assert tale.split()[3:7] == ["256", "0", "of", "4"]
        assert tale.endswith(" s")
        assert "\x1b" not in other
        assert execute(["ps", "--url", f"{server.url}/", "--api-key", "k", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [each["name"] for each in found["models"]] == ["tale", "a\x1b[31mb"]
        assert found["models"][0]["bytes"] == model.memory_bytes
        for key in ([], ["--api-key", "other"]):
            assert execute(["ps", "--url", server.url, *key]) == 2
            assert "asks for another key" in capsys.readouterr().err


def test_nothing_is_loaded(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running([Served("tale", path)], idle_seconds=0.05) as server:
        wait_until(lambda: server.server.pool.find("tale").model is None, "it is not unloaded")
        assert execute(["ps", "--url", server.url]) == 0
        output = capsys.readouterr()
        assert output.out == ""
        assert "has no model loaded" in output.err


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """Something that answers so to whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (http("200 OK", b"<html>"), "expected a server of Clarion's"),
        (http("200 OK", b'{"models": [5]}'), "expected a server of Clarion's"),
        (http("200 OK", b"\xff"), "expected a server of Clarion's"),
        (http("404 Not Found", b"{}"), "status 404"),
        (http("302 Found", b""), "status 302"),
        (b"SSH-2.0-OpenSSH\r\n", "no server answers"),
        (b"", "no server answers"),
    ],
)
def test_what_is_no_server(content: bytes, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(content) as url:
        assert execute(["ps", "--url", url]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["", "nowhere", "ftp://localhost", "http://[::1", "http://localhost:99999", "http://\n"]
)
def test_addresses_that_are_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["ps", "--url", url]) == 2
    assert capsys.readouterr().err.startswith("clarion: ")


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert execute(["ps", "--url", f"http://127.0.0.1:{port}"]) == 2
    assert "clarion serve starts one" in capsys.readouterr().err
