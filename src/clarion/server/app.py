"""From settings and a pool of models to an ASGI application: routes, and what surrounds every request.

    Logged ▶ Access ▶ Router ▶ Endpoint ▶ endpoint(call)
    a line   keys,     path     errors,    reads fields, uses a model, answers
             hosts              leaving

An endpoint is a function of a `Call`. To add one: a file with the function, and a line in `ROUTES`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clarion.server import health, metrics, openapi, running
from clarion.server.access import Access
from clarion.server.call import Call
from clarion.server.errors import CLIENT_LEFT, LeftError, RefusedError, StalledError, refusal
from clarion.server.leaving import Watch
from clarion.server.llama import completion, props, slots, tokens
from clarion.server.log import Log
from clarion.server.openai import chat, completions, embeddings, models, rerank
from clarion.server.pool import Pool
from clarion.server.settings import Settings

Handle = Callable[[Call], Awaitable[None]]

# Method, path, function. The first one that matches counts.
_ROUTES: Final[tuple[tuple[str, str, Handle], ...]] = (
    ("GET", "/v1/models", models.every),
    ("GET", "/v1/models/{name:path}", models.one),
    ("POST", "/v1/completions", completions.complete),
    ("POST", "/v1/chat/completions", chat.answer),
    ("POST", "/v1/embeddings", embeddings.embed),
    ("POST", "/v1/rerank", rerank.rerank),
    *(("GET", path, health.ready) for path in health.PATHS if path != health.LIVE),
    ("GET", health.LIVE, health.live),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/ps", running.running),
    ("POST", "/tokenize", tokens.tokenize),
    ("POST", "/detokenize", tokens.detokenize),
    ("POST", "/apply-template", tokens.apply_template),
    ("POST", "/completion", completion.complete),
    ("POST", "/infill", completion.fill),
    ("GET", "/props", props.props),
    ("GET", "/slots", slots.slots),
    ("POST", "/slots/{id}", slots.act),
    # llama-server has these without the version, too.
    ("GET", "/models", models.every),
    ("POST", "/chat/completions", chat.answer),
    ("POST", "/completions", completions.complete),
    ("POST", "/embeddings", embeddings.embed),
    ("POST", "/rerank", rerank.rerank),
    ("POST", "/reranking", rerank.rerank),
    ("POST", "/v1/reranking", rerank.rerank),
)
ROUTES: Final = (*_ROUTES, ("GET", openapi.PATH, openapi.endpoint(_ROUTES)))
PUBLIC: Final = frozenset(health.PATHS)  # paths that need no key
QUIET: Final = PUBLIC | {"/metrics", "/ps"}  # that get no line where all is well


@dataclass
class Server:
    """What all requests share.

    Attributes:
        running: the requests that are being answered.
        is_ready: the first model is loaded; until then requests wait.
        is_closing: new ones are refused.
    """

    settings: Settings
    pool: Pool
    log: Log
    running: set[Watch] = field(default_factory=set)
    is_ready: bool = False
    is_closing: bool = False

    def end_all(self) -> None:
        """Ends what is being answered: each client is told why."""
        for watch in list(self.running):
            watch.end(RefusedError(503, "the server ends", code="closing", headers={"retry-after": "5"}))


def application(server: Server) -> ASGIApp:
    """The application of a server."""
    router = _Router(
        [Route(path, _Endpoint(server, handle), methods=[m]) for m, path, handle in ROUTES], server
    )
    return _Logged(Access(router, server.settings, PUBLIC), server.log)


class _Endpoint:
    """Calls a function for each request, and tells the client what goes wrong."""

    def __init__(self, server: Server, handle: Handle) -> None:
        self._server = server
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self._server)
        try:
            if self._server.is_closing:
                raise RefusedError(503, "the server ends", code="closing", headers={"retry-after": "5"})
            await self._handle(call)
        except LeftError as left:
            scope["state"]["status"] = CLIENT_LEFT
            if isinstance(left, StalledError):
                await call.abort()
        except Exception as error:
            found = refusal(error)
            if found.code == "internal_error":
                self._server.log.failure(error)
            elif found.status == 500:
                self._server.log.warn(str(found))
            await self._tell(call, found)
        finally:
            call.note()

    async def _tell(self, call: Call, error: RefusedError) -> None:
        if not call.has_begun:
            await call.refuse(error)
            return
        try:
            if call.fail is None:  # nothing else tells the client that half of an answer is not all
                raise TimeoutError
            await call.fail(error)
        except TimeoutError:
            await call.abort()


class _Router:
    """Finds the endpoint of a path; what there is not is refused in OpenAI's form."""

    def __init__(self, routes: list[Route], server: Server) -> None:
        self._routes = routes
        self._server = server
        self._missing = _Endpoint(server, _refuse_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope.setdefault("state", {})
        others: set[str] = set()
        for route in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                scope.update(more)
                await more["endpoint"](scope, receive, send)
                return
            if match is Match.PARTIAL:
                others |= route.methods or set()
        scope["path_params"] = {"path": scope["path"], "method": scope["method"], "others": sorted(others)}
        await self._missing(scope, receive, send)


async def _refuse_path(call: Call) -> None:
    path, method, others = call.path["path"], call.path["method"], call.path["others"]
    if others:
        allowed = ", ".join(others)
        raise RefusedError(
            405,
            f"found {method} {path[:200]}, expected {allowed}",
            code="method_not_allowed",
            headers={"allow": allowed},
        )
    raise RefusedError(404, f"there is nothing at {path[:200]}", code="not_found")


class _Logged:
    """A line for each request, when it is answered: method, path, status, time, tokens."""

    def __init__(self, app: ASGIApp, log: Log) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                state.setdefault("status", message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._line(scope, state, time.perf_counter() - started)

    def _line(self, scope: Scope, state: dict[str, Any], seconds: float) -> None:
        status = state.get("status", CLIENT_LEFT)
        if scope["path"] in QUIET and status == 200:  # programs ask every few seconds
            return
        n_prompt, n_answer = state.get("usage", (0, 0))
        tokens = f", {n_prompt} + {n_answer} tokens" if n_prompt or n_answer else ""
        path = ascii(scope["path"][:200])[1:-1]
        self._log.say(f"{scope['method']} {path} {status} {seconds * 1000:.1f} ms{tokens}")
