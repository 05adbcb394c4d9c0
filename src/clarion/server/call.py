"""One request and its answer, as an endpoint sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.datastructures import QueryParams
from starlette.types import Message, Receive, Scope, Send

from clarion.server.errors import LeftError, RefusedError, body
from clarion.server.leaving import Watch

if TYPE_CHECKING:
    from clarion.server.app import Server

JSON: Final = (b"content-type", b"application/json")
_encode: Final = msgspec.json.Encoder().encode
_MOST_NAMED: Final = 20  # fields that a header names
_MOST_CHARACTERS: Final = 40  # of a field's name


class Call:
    """One request.

    Attributes:
        server: what all requests share.
        watch: ends it when its client leaves.
        path: the words that stand in the places of its route.
        query: the names and values behind the `?` of the address.
        usage: tokens of prompts and of answers, for the log.
        fail: tells the client of an error, where it has a part of the answer already.
        ignored: fields of the request that were not used; the answer's header names them.
        dropped: messages that were left out, since the conversation is longer than the context; likewise.
        arrived: when the request came, by time.monotonic.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, server: Server) -> None:
        self.server = server
        self.path: Mapping[str, str] = scope.get("path_params", {})
        self.query: Mapping[str, str] = QueryParams(scope.get("query_string", b""))
        self.usage = (0, 0)
        self.ignored: list[str] = []
        self.dropped = 0
        self.arrived = time.monotonic()
        self.fail: Callable[[RefusedError], Awaitable[None]] | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self.watch = Watch(receive, server.running)
        self._start: Message | None = None  # status and headers, until they are sent
        self._has_begun = False

    # ---- the request --------------------------------------------------------------------------------------

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its name in small letters."""
        return next((value for key, value in self._scope["headers"] if key == name), None)

    async def body(self) -> bytes:
        """The request's body.

        Raises:
            RefusedError: it is too long, or comes too slowly.
            LeftError: the client left before its end.
        """
        limits = self.server.settings
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > limits.max_body_bytes:
            raise self._too_long(int(length))
        parts: list[bytes] = []
        n = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise LeftError("the client left before the end of its request")
                    parts.append(message.get("body", b""))
                    n += len(parts[-1])
                    if n > limits.max_body_bytes:
                        raise self._too_long(n)
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise RefusedError(
                408,
                f"the request's body did not arrive within {limits.body_seconds:g} s: {n} bytes did",
                code="timeout",
                headers={"connection": "close"},
            ) from None

    def _too_long(self, n: int) -> RefusedError:
        return RefusedError(
            413,
            f"the request's body has {n} bytes or more, at most {self.server.settings.max_body_bytes} are "
            f"allowed (--max-body-bytes)",
            code="body_too_long",
            headers={"connection": "close"},
        )

    # ---- the answer ---------------------------------------------------------------------------------------

    async def answer(self, value: Any, status: int = 200) -> None:
        """Answers with a value as JSON."""
        await self.answer_bytes(_encode(value), status)

    async def answer_bytes(self, content: bytes, status: int = 200, headers: Iterable[Any] = (JSON,)) -> None:
        """Answers with these bytes, by default of JSON."""
        length = (b"content-length", str(len(content)).encode())
        self.begin(status, (*headers, length))
        await self.send(content, more=False)

    async def refuse(self, error: RefusedError) -> None:
        """Answers with an error."""
        headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        await self.answer_bytes(body(error), error.status, (JSON, *headers))

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Status and headers, which go out together with what is sent first: until then it may be an error
        instead."""
        found = list(headers)
        if self.ignored:
            # A field may be called anything; a header holds ASCII, and no end of a line.
            names = ", ".join(ascii(name[:_MOST_CHARACTERS])[1:-1] for name in self.ignored[:_MOST_NAMED])
            found.append((b"x-clarion-ignored", names.encode()))
        if self.dropped:
            found.append((b"x-clarion-dropped-messages", str(self.dropped).encode()))
        self._start = {"type": "http.response.start", "status": status, "headers": found}

    async def send(self, content: bytes, *, more: bool) -> None:
        """Sends a piece of the body; `more`: it is not the last one. Waits while the client does not read."""
        if self._start is not None:
            start, self._start = self._start, None
            self._has_begun = True
            await self._send(start)
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    @property
    def has_begun(self) -> bool:
        """Whether the client has a status already."""
        return self._has_begun

    async def abort(self) -> None:
        """Closes the connection at once, and forgets what the client did not read."""
        transport = self._scope.get("state", {}).get("transport")
        if transport is not None:
            transport.abort()
            await asyncio.sleep(0)  # the protocol hears of it

    def note(self) -> None:
        """Leaves for the log what is known of the tokens."""
        self._scope.setdefault("state", {})["usage"] = self.usage
