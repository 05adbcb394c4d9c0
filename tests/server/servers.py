"""Servers in a thread of the tests' own process, on real ports, and models with chat templates."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from clarion.gguf import File, Writer
from clarion.server.pool import Further, Served
from clarion.server.run import Running, serve
from clarion.server.settings import Settings
from tests.end_to_end.files import BUILT_IN

# It knows tools, variables and reasoning: what it says is seen in what a model is asked.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: "
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\n"
    "{% endfor %}{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% if reasoning_effort %}effort: {{ reasoning_effort }}\n{% endif %}"
    "{% if add_generation_prompt %}{{ name | default('assistant') }}:"
    "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def with_template(path: Path, template: str = TEMPLATE, **more: object) -> Path:
    """The built-in model with a chat template."""
    with File.open(BUILT_IN) as file:
        metadata = {**file.metadata.exact(), "tokenizer.chat_template": template, **more}
        with Writer(path, metadata) as writer:
            for name, tensor in file.tensors.items():
                writer.add(name, tensor.shape, tensor.format, tensor.data)
    return path


@contextmanager
def running(models: list[Served], *, further: Further | None = None, **settings: Any) -> Iterator[Running]:
    """A server of these models, which ends with the block."""
    found: queue.SimpleQueue[Running | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            told = Settings(**{"port": 0, "quiet": True, **settings})
            serve(models, told, further=further, started=found.put)
        except BaseException as error:
            found.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    start = found.get(timeout=60)
    if isinstance(start, BaseException):
        raise start
    try:
        yield start
    finally:
        start.end()
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"


def client(server: Running, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=60, **options)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Waits for what happens soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_idle(server: Running) -> bool:
    """Whether nothing is computed and nobody waits."""
    found = server.server.pool.all()
    return not server.server.running and all(
        each.line.running == each.line.waiting == each.users == 0
        and (
            each.model is None
            or (each.model.figures.texts_running == 0 and each.model.figures.texts_waiting == 0)
        )
        for each in found
    )


def post(server: Running, path: str, body: dict[str, Any]) -> socket.socket:
    """Sends a request by hand; whoever closes the socket has left."""
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, which has to end as streams do."""
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
