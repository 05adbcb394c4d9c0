"""Ask a server for many completions as several users do, and print how it went as JSON.

    python benchmarks/load_server.py ASKS PORT --users 16 --model NAME

ASKS is a file of `served_work.py`. Each user has one connection to 127.0.0.1 and one request at a time,
which streams. What comes is kept as it comes, with its time, and read when all is over: while the server
works, this process only waits and copies, so it takes little of the processors that the server needs.
`cpu_seconds` says how little. `serve.py` calls this; so does `serve_costs.py`.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from served_work import FIXED, Answer, Ask, read, summary

END = b"\r\n0\r\n\r\n"  # of a chunked body; JSON holds no such bytes


@dataclass(slots=True)
class Asked:
    """A request on its way: when it was sent, and what came when."""

    sent: float
    came: list[tuple[float, bytes]] = field(default_factory=list)


class User:
    """One connection, and the request that it is busy with. A server may close it after an answer, as
    llama-server does: then there is another one."""

    def __init__(self, port: int, ready: selectors.BaseSelector) -> None:
        self.asked: Asked
        self._port = port
        self._ready = ready
        self._request = self._tail = b""
        self._has_heard = False
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ready.register(self.socket, selectors.EVENT_READ, self)

    def ask(self, request: bytes) -> None:
        self.asked, self._request = Asked(time.perf_counter()), request
        self._send()

    def _send(self) -> None:
        self._tail = b""
        with suppress(ConnectionError):  # `hear` hears of it
            self.socket.sendall(self._request)

    def _is_closed(self) -> bool:
        """Whether the server has closed the connection since the last answer."""
        return self._has_heard and not self.asked.came

    def close(self) -> None:
        self._ready.unregister(self.socket)
        self.socket.close()

    def hear(self) -> bool:
        """Takes what has come; whether that was the end.

        Raises:
            SystemExit: the server closed the connection, or answers with an error.
        """
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data and self._is_closed():
            self.close()
            self._has_heard = False  # an error, if that happens again
            self._connect()
            self._send()
            return False
        self._has_heard = True
        self.asked.came.append((time.perf_counter(), data))
        if not data or (len(self.asked.came) == 1 and not data.startswith(b"HTTP/1.1 200")):
            raise SystemExit(f"the server says {b''.join(part for _, part in self.asked.came)[-500:]!r}")
        self._tail = (self._tail + data)[-len(END) :]
        return self._tail == END


def encode(ask: Ask, port: int, model: str) -> bytes:
    """The bytes of a request."""
    content: dict[str, Any] = {"model": model, "prompt": ask.prompt, "max_tokens": ask.answer_tokens, **FIXED}
    content |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(content).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run(requests: list[bytes], port: int, n_users: int) -> tuple[list[Asked], float, float]:
    """All requests, from the first that is sent to the end of the last: (requests, began, ended)."""
    waiting = iter(requests)
    done: list[Asked] = []
    with selectors.DefaultSelector() as ready:
        for _ in range(n_users):
            User(port, ready)
        began = time.perf_counter()
        for user in [key.data for key in ready.get_map().values()]:
            if (request := next(waiting, None)) is not None:
                user.ask(request)
            else:
                user.close()
        while len(done) < len(requests):
            for key, _ in ready.select():
                if key.data.hear():
                    done.append(key.data.asked)
                    if (request := next(waiting, None)) is not None:
                        key.data.ask(request)
                    else:
                        key.data.close()
        ended = time.perf_counter()
    return done, began, ended


def answer(asked: Asked) -> Answer:
    """What an answer says: when its pieces of text came, and the tokens that it counts."""
    found = Answer(asked.sent, [], 0, 0)
    for at, event in _events(asked.came):
        if event == b"[DONE]":
            continue
        said = json.loads(event)
        if "error" in said:
            raise SystemExit(f"the server says {event!r}")
        if any(choice["text"] for choice in said["choices"]):
            found.heard.append(at)
        if said.get("usage"):
            found.prompt_tokens = said["usage"]["prompt_tokens"]
            found.tokens = said["usage"]["completion_tokens"]
    return found


def _events(came: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """The data of events in a chunked answer, each with the time at which its last byte came."""
    body, ends, n = [], [], 0  # `ends`: up to which byte had come when
    for at, data in came:
        n += len(data)
        body.append(data)
        ends.append((n, at))
    text = b"".join(body)
    found: list[tuple[float, bytes]] = []
    moments = iter(ends)
    start = text.index(b"\r\n\r\n") + 4
    arrived, at = next(moments)
    content, rest = (
        b"",
        0,
    )  # of the body without the frames of its chunks; `rest`: where the next event begins
    while True:
        line = text.index(b"\r\n", start)
        size = int(text[start:line], 16)
        if size == 0:
            return found
        content += text[line + 2 : line + 2 + size]
        start = line + 2 + size + 2
        while arrived < start - 2:
            arrived, at = next(moments)
        while (end := content.find(b"\n\n", rest)) >= 0:
            event = content[rest:end]
            rest = end + 2
            if event.startswith(b"data: "):
                found.append((at, event[6:]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("asks", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--users", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--model", default="", help="its name, as the server knows it")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    requests = [encode(ask, arguments.port, arguments.model) for ask in read(arguments.asks)]
    before = time.process_time()
    done, began, ended = run(requests, arguments.port, arguments.users)
    cpu_seconds = time.process_time() - before
    answers = [answer(asked) for asked in done]
    print(json.dumps({**summary(answers, began, ended), "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    main()
