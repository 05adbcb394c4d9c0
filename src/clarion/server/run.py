"""A server from its start to its end: the socket, the models, the signals.

    listen ─▶ serve, load ─▶ SIGTERM or SIGINT ─▶ running answers end, or are ended ─▶ models are closed

The socket comes first, so that a port in use is known before a model is read. Until the first model is
loaded `/health` says so, and other requests wait for it. After a signal nothing new is accepted. Running
answers have some seconds; then their computations are ended, and their clients told so. A second signal does
not wait.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn import Config
from uvicorn import Server as Uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clarion.errors import DeviceError, FileError, ParameterError
from clarion.host.memory import memory
from clarion.server import loading
from clarion.server.app import Server, application
from clarion.server.errors import RefusedError, body
from clarion.server.log import Log
from clarion.server.pool import Further, Loader, Pool, Served
from clarion.server.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_SHARE: Final = 0.9  # of the available memory that models may take, where nobody says how much
_BACKLOG: Final = 1024  # connections that wait to be accepted


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has started.

    Attributes:
        url: where it is.
        server: what its requests share; the thread that serves owns it.
        end: does what a signal does, from any thread.
    """

    url: str
    server: Server
    end: Callable[[], None]


def serve(
    models: Sequence[Served],
    settings: Settings,
    *,
    further: Further | None = None,
    started: Callable[[Running], None] | None = None,
) -> None:
    """Serves models until a signal comes.

    Args:
        models: the first one is loaded at the start.
        further: models that come and go.
        started: called when requests can come.

    Raises:
        DeviceError: the address cannot be used.
        FileError, ...: as `clarion.load`, for the first model.
    """
    log = Log(quiet=settings.quiet, texts=settings.log_text)
    with listen(settings) as listener:
        asyncio.run(_Run(models, settings, log, listener, further, started).run())


def listen(settings: Settings) -> socket.socket:
    """The socket that connections come to.

    Raises:
        DeviceError: the address is in use, is not this machine's, or may not be used.
    """
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(
            cast(Any, address), family=family, backlog=_BACKLOG, dualstack_ipv6=settings.host == "::"
        )
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise DeviceError(f"{where} is in use, perhaps by another server; --port takes another") from None
        reason = error.strerror or str(error)
        raise DeviceError(f"{where} cannot be listened at: {reason}; --host and --port say where") from None


def address(settings: Settings, listener: socket.socket) -> str:
    """The URL of the server."""
    host, port = listener.getsockname()[:2]
    if settings.host in ("localhost", "127.0.0.1", "::1"):
        host = settings.host
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class _Run:
    """One run of a server."""

    def __init__(
        self,
        models: Sequence[Served],
        settings: Settings,
        log: Log,
        listener: socket.socket,
        further: Further | None,
        started: Callable[[Running], None] | None,
    ) -> None:
        self._models = models
        self._settings = settings
        self._log = log
        self._listener = listener
        self._further = further
        self._started = started
        self._n_signals = 0

    async def run(self) -> None:
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._hear_signals()
        # Threads for templates, tokens and loads beside those that wait for vectors.
        n_threads = 2 * settings.parallel + 16
        self._loop.set_default_executor(ThreadPoolExecutor(n_threads, "clarion-serve"))
        pool = Pool(
            self._models,
            settings,
            self._log,
            loader=cast(Loader, loading),
            memory_bytes=settings.memory_bytes or int(memory().available * _SHARE),
            further=self._further,
        )
        server = Server(settings, pool, self._log)
        uvicorn = _uvicorn(application(server), settings, self._log)
        serving = asyncio.create_task(uvicorn.serve_on(self._listener))
        warming: asyncio.Task[None] | None = None
        try:
            if await self._load(pool):
                server.is_ready = True
                self._announce(server)
                warming = asyncio.create_task(self._warm(pool))
                await self._end.wait()
        finally:
            server.is_closing = True
            uvicorn.stop_listening()
            await self._let_end(server)
            server.end_all()
            uvicorn.should_exit = True
            uvicorn.force_exit = self._hurry.is_set()
            await serving
            if warming is not None:
                await warming
            await pool.close()

    async def _load(self, pool: Pool) -> bool:
        """Loads the first model; False where a signal came meanwhile."""
        if not self._models:
            return True
        load = asyncio.create_task(pool.load(self._models[0]))
        end = asyncio.create_task(self._end.wait())
        await asyncio.wait([load, end], return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        if not load.done():
            load.cancel()
            return False
        try:
            load.result()
        except RefusedError as error:
            raise error.__cause__ or error from None
        return True

    async def _warm(self, pool: Pool) -> None:
        """Makes the first model ready for requests, which need not wait for this."""
        if self._models:
            async with pool.hold(self._models[0]) as model:
                await asyncio.to_thread(loading.warm, model, self._settings)

    def _announce(self, server: Server) -> None:
        settings = self._settings
        url = address(settings, self._listener)
        self._log.say(f"listening at {url} (OpenAI's API at {url}/v1); Ctrl-C ends")
        if not settings.is_local and not settings.api_keys:
            self._log.warn(
                f"{settings.host} can be reached by other machines, and no key is asked for: "
                f"whoever reaches it can use it (--api-key)"
            )
        if self._started is not None:
            self._started(Running(url, server, self._end_from_anywhere))

    async def _let_end(self, server: Server) -> None:
        """Gives running answers their time."""
        if not server.running:
            return
        self._log.say(f"ending: {len(server.running)} answers have {self._settings.grace_seconds:g} s")
        deadline = self._loop.time() + self._settings.grace_seconds
        while server.running and self._loop.time() < deadline and not self._hurry.is_set():
            await asyncio.sleep(0.05)

    def _hear_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._loop.add_signal_handler(number, self._signalled)
            except (RuntimeError, ValueError):  # not the main thread, which alone hears of signals
                return

    def _end_from_anywhere(self) -> None:
        self._loop.call_soon_threadsafe(self._signalled)

    def _signalled(self) -> None:
        self._n_signals += 1
        (self._end if self._n_signals == 1 else self._hurry).set()


class _Protocol(HttpToolsProtocol):
    """Lets requests reach their connection, to close one whose client does not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only where a socket names its protocol. Without it the body of an answer waits until
        # the client has acknowledged the headers: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the form of all errors."""
        content = body(RefusedError(400, "the request is no HTTP/1.1", code="invalid_http"))
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    # Some clients offer HTTP/2 with each request. The parser takes an offer for the end of the request, and
    # its body would be lost: the request is read once more, without the offer.

    def data_received(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)

    def _should_upgrade(self) -> bool:
        return any(name == b"upgrade" for name, _ in self.headers)

    def handle_websocket_upgrade(self) -> None:
        error = sys.exception()
        assert isinstance(error, HttpParserUpgrade)
        rest = self._data[error.args[0] :]
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.data_received(b"\r\n".join([*head, b"", rest]))


class _Server(Uvicorn):
    """Uvicorn without signals of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.servers = []  # a load that fails at once may end it before it has begun

    async def serve_on(self, listener: socket.socket) -> None:
        await self._serve([listener])

    def stop_listening(self) -> None:
        """Refuses new connections; those that are there go on."""
        for listening in self.servers:
            listening.close()


class _Warnings(logging.Handler):
    """What uvicorn warns of, in our log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warn(record.getMessage())


def _uvicorn(app: ASGIApp, settings: Settings, log: Log) -> _Server:
    """
    Raises:
        FileError, ParameterError: the files of TLS cannot be used.
    """
    config = Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [_Warnings(log)]
    logger.propagate = False
    try:
        config.load()
    except ssl.SSLError as error:
        raise ParameterError(
            f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: no certificate with its key: "
            f"{error.reason or error}"
        ) from None
    except OSError as error:
        raise FileError(f"--tls-cert, --tls-key: {error.filename or ''} {error.strerror}") from None
    return _Server(config)
