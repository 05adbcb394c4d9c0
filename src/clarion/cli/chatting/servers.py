"""Servers of tools, by the Model Context Protocol (https://modelcontextprotocol.io), as processes.

Who owns what. An event loop on a thread of its own owns the servers: one task for each, which starts the
process, waits for the end of the chat and stops it. Whoever calls a tool waits for its answer; Ctrl-C ends
the wait and cancels the call. What servers print on standard error is kept apart, and its last line shown
where one does not start.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clarion.cli.prompt import read_text
from clarion.errors import FormatError, ParameterError, UnsupportedError

if TYPE_CHECKING:
    from mcp import Client

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
CALL_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Server:
    """How one is started."""

    name: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None


def servers(wanted: Sequence[str]) -> list[Server]:
    """What the values of --mcp say: each a command line, or a file with {"mcpServers": {...}}.

    Raises:
        FileError, FormatError, ParameterError: one cannot be read.
    """
    found: list[Server] = []
    for text in wanted:
        if text.endswith(".json") and " " not in text.strip():
            found += _listed(text)
            continue
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ParameterError(f"--mcp: found {text[:40]!r}: {str(error).lower()}") from None
        if not words:
            raise ParameterError("--mcp: found nothing, expected a command or a JSON file")
        found.append(Server(words[0], words[0], tuple(words[1:])))
    return found


def _listed(path: str) -> list[Server]:
    try:
        document = json.loads(read_text(None, path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ParameterError):
            raise
        raise FormatError(f"{path}: no JSON: {error}") from None
    listed = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        raise FormatError(f'{path}: found no object "mcpServers"')
    return [_server(f"{path}: mcpServers.{name}", name, value) for name, value in listed.items()]


def _server(where: str, name: str, value: Any) -> Server:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: found {value!r:.40}, expected an object")
    if "command" not in value and "url" in value:
        raise UnsupportedError(f"{where}: servers at an address are not implemented, only commands")
    command, arguments = value.get("command"), value.get("args", [])
    environment, folder = value.get("env") or {}, value.get("cwd")
    if not isinstance(command, str) or not command:
        raise FormatError(f"{where}.command: found {command!r:.40}, expected a command")
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise FormatError(f"{where}.args: found {arguments!r:.40}, expected a list of strings")
    if not isinstance(environment, dict) or not all(isinstance(text, str) for text in environment.values()):
        raise FormatError(f"{where}.env: found {environment!r:.40}, expected strings by name")
    if folder is not None and not isinstance(folder, str):
        raise FormatError(f"{where}.cwd: found {folder!r:.40}, expected a folder")
    return Server(name, command, tuple(arguments), environment, folder)


class Tools:
    """The tools of all servers, which run until `close`.

    Attributes:
        descriptions: as chat templates take them.
        servers: the name of the server that each tool is of.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        """Starts the servers.

        Raises:
            UnsupportedError: the package `mcp` is not installed.
            ParameterError: a server does not start, or two tools have one name.
        """
        try:
            import mcp  # noqa: F401  # it takes a second
        except ImportError:
            raise UnsupportedError(
                "tools need the package mcp, which is not installed: pip install 'clarion[chat-tools]'"
            ) from None
        self.descriptions: list[dict[str, Any]] = []
        self.servers: dict[str, str] = {}
        self._clients: dict[str, Client] = {}
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._running: list[Future[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="clarion-tools", daemon=True)
        self._thread.start()
        try:
            for server in servers:
                self._start(server)
        except BaseException:
            self.close()
            raise

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """Calls a tool. Returns what it said, and whether that is an error: for the model to read."""
        if name not in self._clients:
            return f"there is no tool {name!r}; there are: {', '.join(sorted(self._clients))}", True
        called = asyncio.run_coroutine_threadsafe(self._call(name, arguments), self._loop)
        try:
            return called.result()
        except KeyboardInterrupt:
            called.cancel()
            raise
        except Exception as error:  # the server's, whatever it is: the conversation goes on
            return f"{type(error).__name__}: {error}", True

    def close(self) -> None:
        """Stops the servers."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            wait(self._running)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Tools:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, server: Server) -> None:
        started: Future[Any] = Future()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            serving = asyncio.run_coroutine_threadsafe(self._serve(server, said, started), self._loop)
            self._running.append(serving)
            try:
                tools, client = started.result(START_SECONDS)
            except Exception as error:
                serving.cancel()
                wait([serving], STOP_SECONDS)
                said.seek(0)
                lines = [line for line in said.read().split("\n") if line.strip()]
                raise ParameterError(
                    f"--mcp: the server {server.name} ({server.command}) does not start: "
                    f"{lines[-1] if lines else _reason(error)}"
                ) from error
        for tool in tools:
            if tool.name in self._clients:
                raise ParameterError(
                    f"{server.name}: its tool {tool.name} has the name of one of {self.servers[tool.name]}"
                )
            self._clients[tool.name] = client
            self.servers[tool.name] = server.name
            function = {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.input_schema,
            }
            self.descriptions.append({"type": "function", "function": function})

    async def _serve(self, server: Server, said: Any, started: Future[Any]) -> None:
        """Runs a server until the end. `started` gets its tools and the client, or what went wrong."""
        from mcp import Client, StdioServerParameters, stdio_client

        parameters = StdioServerParameters(
            command=server.command,
            args=list(server.arguments),
            env=dict(server.environment) or None,
            cwd=server.folder,
        )
        try:
            async with Client(stdio_client(parameters, errlog=said)) as client:
                listed = await client.list_tools()
                tools = listed.tools
                while listed.next_cursor is not None:
                    listed = await client.list_tools(cursor=listed.next_cursor)
                    tools = [*tools, *listed.tools]
                started.set_result((tools, client))
                await self._over.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    async def _call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        client = self._clients[name]
        result = await client.call_tool(name, arguments, read_timeout_seconds=CALL_SECONDS)
        texts = [getattr(part, "text", None) or f"({part.type})" for part in result.content]
        if not texts and result.structured_content is not None:
            texts = [json.dumps(result.structured_content)]
        return "\n".join(texts), bool(result.is_error)


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error, which may be a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
