"""Who may call: keys, hosts, origins; and how much."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from clarion.errors import ParameterError
from clarion.server.pool import Served
from clarion.server.run import Running
from clarion.server.settings import Settings
from tests.server.servers import client, running, wait_until

MODELS = "/v1/models"


def error(answer: httpx.Response) -> dict[str, object]:
    found: dict[str, object] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("clarion.localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("192.168.1.7:8080", 200),  # no name can be made to point here
        (socket.gethostname(), 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8080", 403),
        ("", 403),
    ],
)
def test_hosts(server: Running, host: str, status: int) -> None:
    with client(server) as http:
        answer = http.get(MODELS, headers={"host": host})
        assert answer.status_code == status
        if status == 403:
            assert error(answer)["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://[::1]:80", 200),
        ("vscode-webview://abc", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("https://chat.localhost@evil.example", 403),
        ("null", 403),
        ("chrome-extension://abc", 403),
    ],
)
def test_origins(server: Running, origin: str, status: int) -> None:
    with client(server) as http:
        answer = http.get(MODELS, headers={"origin": origin})
        assert answer.status_code == status
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if status == 200 else None)
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-a, authorization",
        }
        preflight = http.options("/v1/completions", headers={"origin": origin, **asked})
        assert preflight.status_code == (204 if status == 200 else 403)
        if status == 200:
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert preflight.headers["access-control-allow-headers"] == "x-a, authorization"


def test_what_the_server_was_told_of_is_allowed(chat_model: Path) -> None:
    told = {"allow_hosts": ("models.example",), "allow_origins": ("https://page.example",)}
    with running([Served("tale", chat_model)], **told) as server, client(server) as http:
        page = {"host": "models.example:80", "origin": "https://page.example"}
        answer = http.get(MODELS, headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert http.get(MODELS, headers={"host": "other.example"}).status_code == 403
        assert http.get(MODELS, headers={"origin": "https://other.example"}).status_code == 403


def test_keys(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], api_keys=("one", "two")) as server, client(server) as http:
        for headers in (
            {"authorization": "Bearer one"},
            {"authorization": "bearer two"},
            {"x-api-key": "two"},
            {"api-key": "one"},
            {"authorization": "Bearer one", "host": "any.example"},  # a page does not know the key
        ):
            assert http.get(MODELS, headers=headers).status_code == 200
        for headers in (
            {},
            {"authorization": "Bearer on"},
            {"x-api-key": "onetwo"},
            {"authorization": "one"},
        ):
            answer = http.get(MODELS, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error(answer)["code"] == "invalid_api_key"
        assert http.post("/v1/nothing").status_code == 401  # not even what there is
        preflight = {"origin": "http://localhost:1", "access-control-request-method": "POST"}
        assert http.options(MODELS, headers=preflight).status_code == 204


def test_long_bodies(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], max_body_bytes=2000) as server, client(server) as http:
        body = json.dumps({"prompt": "x" * 2000})
        answer = http.post("/v1/completions", content=body)
        assert (answer.status_code, error(answer)["code"]) == (413, "body_too_long")
        answer = http.post("/v1/completions", content=iter([body[:1500].encode(), body[1500:].encode()]))
        assert answer.status_code == 413
        assert http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200


def test_a_body_that_does_not_come(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], body_seconds=0.2) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        wait_until(lambda: not server.server.running, "nothing is left")


def test_paths_and_methods(server: Running) -> None:
    with client(server) as http:
        for path in ("/v1/nothing", "/", "/v1/chat", "/v1/models/no/such"):
            answer = http.get(path)
            assert (answer.status_code, error(answer)["type"]) == (404, "invalid_request_error")
        answer = http.get("/v1/completions")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert http.delete(MODELS).status_code == 405
        assert http.head(MODELS).status_code == 200
        assert http.get("/models").json() == http.get(MODELS).json()


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", "invalid_json", "no JSON"),
        (b"{", "invalid_json", "no JSON"),
        (b'"x"', "invalid_json", "a text, expected an object"),
        (b'{"prompt": "\xff"}', "invalid_json", "no JSON"),
        (b'{"prompt": "\\ud800"}', "invalid_json", "no JSON"),
        (b"[" * 100_000, "invalid_json", "no JSON"),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", "no JSON"),
    ],
)
def test_bodies_that_are_no_request(server: Running, content: bytes, code: str, said: str) -> None:
    with client(server) as http:
        answer = http.post("/v1/completions", content=content)
        assert answer.status_code == 400
        found = error(answer)
        assert found["code"] == code
        assert said in str(found["message"])


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"parallel": 0}, {"api_keys": ("",)}, {"tls_cert": "x"}, {"stall_seconds": 0.0}]
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_keys_are_compared_whole(chat_model: Path) -> None:
    """A key of other characters than ASCII is another key, not an error."""
    with running([Served("tale", chat_model)], api_keys=("one",)) as server, client(server) as http:
        started = time.monotonic()
        answer = http.get(MODELS, headers={"authorization": "Bearer é".encode()})
        assert answer.status_code == 401
        assert time.monotonic() - started < 30
