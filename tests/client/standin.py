"""A server that says what a test lets it say, byte by byte."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MODELS = {"object": "list", "data": [{"id": "other", "object": "model", "owned_by": "somebody"}]}


@dataclass
class Answer:
    """What is said to one request: a status, headers, and parts of a body; between them it waits.

    Attributes:
        is_cut: the connection ends before the end that was promised.
        waits: seconds before each part.
    """

    parts: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False
    waits: float = 0.0


@dataclass
class StandIn:
    """The server.

    Attributes:
        url: where it is.
        answers: what it says to the next requests of each path.
        asked: the path, headers and fields of every request.
    """

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def says(self, path: str, *answers: Answer) -> None:
        self.answers.setdefault(path, []).extend(answers)

    def fields(self, path: str) -> list[Any]:
        """What was asked there."""
        return [fields for where, _, fields in self.asked if where == path]


def whole(value: object, *, headers: dict[str, str] | None = None, **how: Any) -> Answer:
    kind = {"content-type": "application/json"}
    return Answer([json.dumps(value).encode()], headers=kind | (headers or {}), **how)


def events(*values: object, done: bool = True, headers: dict[str, str] | None = None, **how: Any) -> Answer:
    parts = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return Answer(
        [*parts, *([b"data: [DONE]\n\n"] if done else [])],
        headers={"content-type": "text/event-stream"} | (headers or {}),
        **how,
    )


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """A server without a word of Clarion's, which lists one model."""
    found = StandIn()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while (first := self.rfile.readline()).strip():
                path = first.split()[1].decode()
                headers = {}
                while line := self.rfile.readline().strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", 0)))
                found.asked.append((path, headers, json.loads(body) if body else None))
                waiting = found.answers.get(path)
                if waiting:
                    answer = waiting.pop(0)
                elif path == "/v1/models":
                    answer = whole(MODELS)
                else:
                    answer = whole({"error": {"message": f"nothing at {path}"}}, status=404)
                if not self._say(answer):
                    return

        def _say(self, answer: Answer) -> bool:
            head = [f"HTTP/1.1 {answer.status} X", "transfer-encoding: chunked"]
            head += [f"{name}: {value}" for name, value in answer.headers.items()]
            try:
                self.wfile.write("\r\n".join([*head, "", ""]).encode())
                for part in answer.parts:
                    time.sleep(answer.waits)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                if not answer.is_cut:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                return False
            return not answer.is_cut

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as listener:
        found.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            listener.shutdown()
            thread.join()
