"""The server's own description holds, and whatever is sent gets an answer or a clean error."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clarion.server import health
from clarion.server.app import ROUTES
from clarion.server.llama import props
from clarion.server.openapi import SHAPES, description
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.server.servers import client, is_idle, running, wait_until

CHECKS = [
    not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance,
]  # fmt: skip
SEED = 20261201


@pytest.fixture(scope="module")
def small(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Its texts are short, however long they shall be."""
    told: Any = {"context": 64, "slot_save_path": str(tmp_path_factory.mktemp("slots")), "parallel": 8}
    with running([Served("tale", chat_model)], **told, loading={"threads": 1}) as server:
        yield server


@pytest.fixture(scope="module")
def described(small: Running) -> Any:
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


def test_the_description_holds(described: Any, pytestconfig: pytest.Config) -> None:
    n = 200 if pytestconfig.getoption("--all") else 6
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == len(ROUTES) - 1  # it leaves out where the description itself lies
    for operation in operations:

        @settings(max_examples=n, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        check()


def test_every_endpoint_is_described() -> None:
    """Those without a shape are the ones that take nothing and give what has no type."""
    plain = {health.ready, health.live, props.props}
    assert {handle for *_, handle in ROUTES[:-1]} == set(SHAPES) | plain
    found = description(ROUTES)
    assert {path.replace("{name:path}", "{name}") for _, path, _ in ROUTES} == set(found["paths"])


# ---- anything at all --------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e-300, 1e308),
    *(
        "",
        "a",
        "\x00",
        "é\U0001f98a",
        "x" * 3000,
        "\ud800",
        "{{ 7 * 7 }}",
        "../../etc/passwd",
        "auto",
        "none",
    ),
    *([], {}, [[]], [{}], [None], [1, 2, 3], [-1], [10**12], ["a", 1], [["a"]], {"type": "function"}),
    *({"": ""}, {"role": "user", "content": "a"}, [{"role": "user", "content": "a"}], {"0": 1e308}),
)
BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "Once", "max_tokens": 2},
    "chat": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "embeddings": {"input": ["a", "b"]},
    "rerank": {"query": "a", "documents": ["a", "b"]},
    "tokenize": {"content": "Once"},
    "detokenize": {"tokens": [1, 2]},
    "template": {"messages": [{"role": "user", "content": "Hi"}]},
    "completion": {"prompt": "Once", "n_predict": 2},
    "infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 2},
    "slots": {"filename": "a"},
}
# What is not JSON as it should be.
RAW = (
    *(b"", b"{", b"[]", b"null", b'"a"', b"NaN", b'{"prompt": NaN}', b'{"prompt": 1e999}', b"\xff\xfe{}"),
    *(b'{"prompt": "\xc3\x28"}', b'{"prompt": "a", "prompt": "b"}', b'\xef\xbb\xbf{"prompt": "a"}'),
    *(b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' * 3000 + b"1" + b"}" * 3000),
    *(b'{"max_tokens": 1' + b"0" * 5000 + b', "prompt": "a"}', b'{"prompt": "\\ud800"}', b"\x00" * 100),
)


def request(draw: random.Random) -> tuple[str, str, bytes]:
    """A method, a path and a body, of which something is often wrong."""
    method, path, _ = draw.choice(ROUTES)
    path = path.replace("{name:path}", draw.choice(("tale", "a/b", "%00", "%ff", "..", "x" * 500)))
    path = path.replace("{id}", draw.choice(("0", "7", "8", "-1", "x", "9" * 40)))
    if path.startswith("/slots"):
        path += "?action=" + draw.choice(("save", "restore", "erase", "", "%ff"))
    base = next((body for name, body in BODIES.items() if name in path), {})
    body = {**base}
    fields = sorted(
        {name for shape in SHAPES.values() if shape.request for name in shape.request.__struct_fields__}
    )
    if draw.random() < 0.1:
        body |= {draw.choice(("\n", "a\r\nb: c", "\x00", "é", "x" * 9000, "")): 1}
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        body[draw.choice(fields)] = draw.choice(VALUES)
    content = json.dumps(body).encode()
    kind = draw.random()
    if kind < 0.15:
        content = draw.choice(RAW)
    elif kind < 0.25:
        at = draw.randrange(len(content) + 1)
        content = content[:at] + bytes(draw.randrange(256) for _ in range(3)) + content[at + 1 :]
    elif kind < 0.3:
        content = content[: draw.randrange(len(content) + 1)]
    if draw.random() < 0.1:
        method = draw.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"))
    if draw.random() < 0.05:
        path = draw.choice(("/", "//", "/v1", "/v1/chat", "/%2e%2e", "/v1/completions/", "/" + "a" * 2000))
    return method, path, content


def test_anything_at_all(small: Running, pytestconfig: pytest.Config) -> None:
    n = 10_000 if pytestconfig.getoption("--all") else 300
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    served = small.server.pool.find("tale")
    assert served.model is not None
    with client(small) as http:
        for number in range(n):
            method, path, content = request(draw)
            answer = http.request(method, path, content=content)
            said = (
                f"{number}: {method} {path[:99]} {content[:300]!r}: {answer.status_code} {answer.text[:300]}"
            )
            assert 200 <= answer.status_code < 500, said
            kind = answer.headers.get("content-type", "")
            if answer.status_code >= 400:
                assert kind == "application/json", said
                assert method == "HEAD" or answer.json()["error"]["message"], said
            elif kind.startswith("text/event-stream"):
                assert "internal_error" not in answer.text, said
            elif kind == "application/json" and method != "HEAD":
                answer.json()
        wait_until(lambda: is_idle(small), "something is left")
        found = http.post(
            "/v1/completions", json={"prompt": "Once", "max_tokens": 9, "temperature": 0}
        ).json()
    assert found["choices"][0]["text"] == served.model.generate("Once", max_tokens=9, greedy=True).text
    wait_until(lambda: is_idle(small), "something is left")
    figures = served.model.figures
    assert (figures.texts_running, figures.texts_waiting) == (0, 0)
    assert figures.cache_bytes_used == figures.cache_bytes_retained
