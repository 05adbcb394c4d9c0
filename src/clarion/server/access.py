"""Who may call the server: keys, names of the host, pages of browsers.

A page on the web can make a browser send requests to a server on its visitor's machine, also by letting a
name of its own point there (DNS rebinding). So a request must name this machine as its host (a number does),
and a page that calls must come from this machine too, unless the server was told of others. A server with
keys does not look at the host: a page does not know the keys.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clarion.server.errors import RefusedError, body
from clarion.server.settings import ALL, Settings, is_address, is_loopback

# Pages of programs on this machine, whose schemes no page of the web can have.
_LOCAL_SCHEMES: Final = frozenset({"app", "file", "tauri", "vscode-file", "vscode-webview"})
_METHODS: Final = b"GET, POST, HEAD, OPTIONS, DELETE"


class Access:
    """Lets requests through that may come in, and says to browsers which pages may read the answers."""

    def __init__(self, app: ASGIApp, settings: Settings, public: frozenset[str]) -> None:
        """`public`: paths that need no key."""
        self._app = app
        self._keys = [key.encode() for key in settings.api_keys]
        self._public = public
        self._hosts = {name.lower() for name in settings.allow_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allow_origins}
        own = socket.gethostname().lower()
        self._names = {settings.host.lower(), own, f"{own}.local"} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        origin = headers.get(b"origin", b"").decode("latin-1")
        try:
            if not self._keys:
                self._check_host(headers.get(b"host", b"").decode("latin-1"))
            if origin:
                self._check_origin(origin, headers.get(b"host", b"").decode("latin-1"))
                send = _Shared(origin, send)
                if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                    await _preflight(headers, send)
                    return
            if self._keys and scope["path"] not in self._public:
                self._check_key(headers)
        except RefusedError as error:
            await _refuse(error, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = _without_port(host).lower()
        if is_loopback(name) or is_address(name) or name in self._names:
            return
        if ALL not in self._hosts and name not in self._hosts:
            raise RefusedError(
                403,
                f"the request names the host {name[:80]!r}, which is not a name of this machine; "
                f"--allow-host {name[:80]} lets it through",
                code="host_not_allowed",
            )

    def _check_origin(self, origin: str, host: str) -> None:
        lower = origin.lower().rstrip("/")
        parts = urlsplit(lower)
        if ALL in self._origins or lower in self._origins or parts.scheme in _LOCAL_SCHEMES:
            return
        is_web = parts.scheme in ("http", "https")
        if is_web and (is_loopback(_without_port(parts.netloc)) or parts.netloc == host.lower()):
            return
        raise RefusedError(
            403,
            f"pages of {origin[:80]!r} may not call this server; --allow-origin {origin[:80]} lets them",
            code="origin_not_allowed",
        )

    def _check_key(self, headers: MutableMapping[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        key = given[7:].strip() if given[:7].lower() == b"bearer " else b""
        key = key or headers.get(b"x-api-key", b"") or headers.get(b"api-key", b"")
        # All are compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(key, known) for known in self._keys):
            found = "another one" if key else "none"
            raise RefusedError(
                401,
                f"found {found}, expected a key of this server, as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


class _Shared:
    """Sends answers that a page of this origin may read."""

    def __init__(self, origin: str, send: Send) -> None:
        self._headers = [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-clarion-ignored, x-clarion-dropped-messages, retry-after"),
            (b"vary", b"origin"),
        ]
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *self._headers]
        await self._send(message)


async def _preflight(headers: MutableMapping[bytes, bytes], send: Send) -> None:
    wanted = headers.get(b"access-control-request-headers", b"*")
    more = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": more})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(error: RefusedError, send: Send) -> None:
    content = body(error)
    headers: list[Any] = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _headers(scope: Scope) -> MutableMapping[bytes, bytes]:
    return dict(scope["headers"])


def _without_port(netloc: str) -> str:
    """The host of `host:port`, `[address]:port` or either without a port."""
    if netloc.startswith("["):
        return netloc.partition("]")[0] + "]"
    return netloc.partition(":")[0]
