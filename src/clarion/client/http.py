"""Requests over HTTP: connections, keys, retries, events.

A request that a server refuses for now (429, 503), or whose connection breaks before an answer has begun, is
sent again, `retries` times at most, after the seconds that the server names, or growing pauses. What is asked
here changes nothing on a server, so a second request is as good as the first. Once an answer has begun, it is
not asked for again: what breaks then is an error.
"""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from clarion.client.events import Events
from clarion.client.failures import failure, failure_of_event, unreachable
from clarion.errors import (
    ClarionError,
    ParameterError,
    ServerError,
    TokenizerError,
    UnreachableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS: Final = 10.0  # in which a machine has to accept a connection
_FIRST_PAUSE: Final = 0.5  # seconds before the first retry; each further pause is twice as long
_LONGEST_PAUSE: Final = 30.0
_END_SECONDS: Final = 1.0  # in which an answer ends behind its last event
_DONE: Final = "[DONE]"
_BUSY: Final = (429, 503)


class Http:
    """The way to one server. After its making it belongs to the event loop that uses it."""

    def __init__(self, url: str, api_key: str | None, timeout: float | None, retries: int) -> None:
        """
        Args:
            url: without a slash at its end.
            timeout: seconds in which an answer, or the next piece of one, has to come.
        """
        import httpx

        self.url = url
        self._timeout = timeout
        self._retries = retries
        connect = _CONNECT_SECONDS if timeout is None else min(timeout, _CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            trust_env=not _is_here(url),  # no proxy stands between a machine and itself
            timeout=httpx.Timeout(timeout, connect=connect, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        )

    async def get(self, path: str) -> Any:
        """What is there, as JSON."""
        return await self._read(await self._open("GET", path, None))

    async def post(self, path: str, fields: dict[str, Any]) -> Any:
        """The answer to a request, as JSON."""
        response = await self._open("POST", path, encoded(fields))
        content = await self._read(response)
        _check_used(response)
        return content

    @asynccontextmanager
    async def events(
        self, path: str, fields: dict[str, Any]
    ) -> AsyncGenerator[AsyncGenerator[dict[str, Any]]]:
        """The events of an answer that comes in pieces, until its end."""
        response = await self._open("POST", path, encoded({**fields, "stream": True}))
        try:
            _check_used(response)
            async with aclosing(self._events(response)) as events:
                yield events
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._client.aclose()

    async def _open(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """An answer that has begun, and is no error."""
        import httpx

        headers = {"content-type": "application/json"} if content is not None else {}
        for n_tries in range(1, self._retries + 2):
            found: ClarionError
            seconds: float | None = None
            try:
                request = self._client.build_request(
                    method, f"{self.url}{path}", content=content, headers=headers
                )
                response = await self._client.send(request, stream=True)
            except httpx.ReadTimeout:
                raise self._late() from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                found = unreachable(self.url, error)
            else:
                if response.is_success:
                    return response
                found = await self._refused(response)
                if response.status_code not in _BUSY:
                    raise found
                seconds = _seconds(response.headers.get("retry-after"))
            if n_tries > self._retries:
                raise found
            if seconds is None:
                seconds = _FIRST_PAUSE * 2 ** (n_tries - 1) * random.uniform(0.75, 1.0)
            await asyncio.sleep(min(seconds, _LONGEST_PAUSE))
        raise AssertionError("unreachable")

    async def _refused(self, response: httpx.Response) -> ClarionError:
        import httpx

        try:
            content = await response.aread()
        except httpx.HTTPError:
            content = b""  # the status says enough
        finally:
            await response.aclose()
        where = response.headers.get("location")
        if response.is_redirect and where:
            return ServerError(f"{self.url}: the server is at {where}: connect to that", response.status_code)
        return failure(self.url, response.status_code, content)

    async def _read(self, response: httpx.Response) -> Any:
        import httpx

        try:
            content = await response.aread()
        except httpx.ReadTimeout:
            raise self._late() from None
        except httpx.HTTPError as error:
            raise self._cut(error) from None
        finally:
            await response.aclose()
        try:
            return json.loads(content)
        except ValueError:
            raise ServerError(
                f"{self.url}: found {content[:80]!r}, expected an answer in JSON; is this the address of a "
                f"server of models?",
                response.status_code,
            ) from None

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
        import httpx

        if "text/event-stream" not in response.headers.get("content-type", ""):
            raise ServerError(
                f"{self.url}: found an answer of type {response.headers.get('content-type')!r}, expected "
                f"text/event-stream",
                response.status_code,
            )
        reader = Events()
        contents = response.aiter_bytes()
        try:
            async for content in contents:
                for event in reader.feed(content):
                    if event == _DONE:
                        await _read_to_the_end(contents)
                        return
                    yield self._event(event)
        except httpx.ReadTimeout:
            raise self._late() from None
        except httpx.HTTPError as error:
            raise self._cut(error) from None

    def _event(self, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServerError(f"{self.url}: found the event {text[:80]!r}, expected an object of JSON")
        if found.get("error") is not None:
            raise failure_of_event(self.url, found)
        return found

    def _late(self) -> UnreachableError:
        return UnreachableError(f"{self.url}: the server has said nothing for {self._timeout:g} s (timeout)")

    def _cut(self, error: Exception) -> UnreachableError:
        why = f": {error}" if str(error) else ""
        return UnreachableError(f"{self.url}: the connection broke in the middle of the answer{why}")


async def _read_to_the_end(contents: AsyncIterator[bytes]) -> None:
    """A connection whose answer was read to its end serves the next request; another one is closed."""
    import httpx

    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in contents:
                pass


def encoded(fields: dict[str, Any]) -> bytes:
    """The fields as JSON.

    Raises:
        TokenizerError: a text holds half a character.
        ParameterError: JSON cannot hold a value.
    """
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20) : error.start]
        raise TokenizerError(f"behind {around!r} the text has half a surrogate pair") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"a value cannot be sent as JSON: {error}") from None


def _check_used(response: httpx.Response) -> None:
    """
    Raises:
        UnsupportedError: the server did not look at something that it was asked for.
    """
    ignored = [name.strip() for name in response.headers.get("x-clarion-ignored", "").split(",")]
    if "tools" in ignored:
        warnings.warn("the chat template does not use tools: the model is not told of them", stacklevel=2)
    others = [name for name in ignored if name and not name.startswith("tools")]
    if others:
        raise UnsupportedError(f"{', '.join(others)}: this server does not know it")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _seconds(text: str | None) -> float | None:
    """Of a header Retry-After; dates are not looked at."""
    return float(text) if text is not None and text.isdigit() else None
