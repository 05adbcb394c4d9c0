"""Requests on their way: what is sent, and what comes of it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

from clarion.client.fields import Asked
from clarion.client.http import Http
from clarion.client.texts import Text
from clarion.errors import CancelledError, ClarionError, ServerError, UnreachableError, UnsupportedError
from clarion.runtime.completion import Completion
from clarion.runtime.request import PromptDone, Put, Result

T = TypeVar("T")


class Question(ABC, Generic[T]):
    """A request with one answer, which `found` has at the end."""

    found: T

    async def serve(self, http: Http, put: Put) -> Result:
        self.found = await self._ask(http)
        return 0

    def left(self) -> Result | ClarionError:
        return CancelledError("the request was cancelled")

    @abstractmethod
    async def _ask(self, http: Http) -> T: ...


class Get(Question[Any]):
    """What a path has."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def _ask(self, http: Http) -> Any:
        return await http.get(self._path)


class Post(Question[T]):
    """What `read` makes of an answer in JSON."""

    def __init__(self, path: str, fields: dict[str, Any], read: Callable[[Any], T]) -> None:
        self._path = path
        self._fields = fields
        self._read = read

    async def _ask(self, http: Http) -> T:
        answer, ignored = await http.post(self._path, self._fields)
        check_used(ignored)
        return read_as(http.url, answer, self._read)


class Whole(Question[list[Completion]]):
    """Texts that come at their ends."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def serve(self, http: Http, put: Put) -> Result:
        await super().serve(http, put)
        # Of other servers, a prompt's length may not be known for each text.
        n = sum(text.timings.prompt_tokens for text in self.found) if self._asked.has_details else 0
        if n:
            put(PromptDone(n, n))
        return 0

    async def _ask(self, http: Http) -> list[Completion]:
        answer, ignored = await http.post(self._asked.path, self._asked.fields)
        check_used(ignored)
        return read_as(http.url, answer, self._completions)

    def _completions(self, answer: Any) -> list[Completion]:
        choices = sorted(answer["choices"], key=lambda choice: cast(int, choice["index"]))
        if [choice["index"] for choice in choices] != list(range(self._asked.n)):
            raise ServerError(f"the server answers with {len(choices)} texts, expected {self._asked.n}")
        found = []
        for choice in choices:
            text = Text(self._asked)
            text.take(choice)
            if not text.is_over:
                raise KeyError("clarion")
            if self._asked.n == 1:
                text.count(answer.get("usage"))
            found.append(text.whole())
        return found


class Pieces:
    """A text that comes in pieces."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._text = Text(asked)

    async def serve(self, http: Http, put: Put) -> Result:
        fields = {**self._asked.fields, "stream": True}
        if not self._asked.has_details:
            fields["stream_options"] = {"include_usage": True}
        async with http.events(self._asked.path, fields) as (events, ignored):
            check_used(ignored)
            async with aclosing(cast(Any, events)):
                async for event in events:
                    read_as(http.url, event, lambda event: self._take(event, put))
        if not self._text.is_over:
            raise UnreachableError(f"{http.url}: the answer ends in its middle: the server is gone")
        return self._text.whole()

    def left(self) -> Result | ClarionError:
        return self._text.cancelled()

    def _take(self, event: Any, put: Put) -> None:
        self._text.count(event.get("usage"))
        for choice in event.get("choices") or ():
            knew = self._text.prompt_tokens is not None
            piece = self._text.take(choice)
            if not knew and (n := self._text.prompt_tokens) is not None:
                put(PromptDone(n, n))
            if piece is not None:
                put(piece)


def read_as(url: str, answer: Any, read: Callable[[Any], T]) -> T:
    """What `read` makes of an answer.

    Raises:
        ServerError: the answer is of another form.
    """
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ClarionError):
            raise
        raise ServerError(
            f"{url}: found an answer that is none of this endpoint ({type(error).__name__}: {error}): "
            f"{str(answer)[:80]}"
        ) from None


def check_used(ignored: list[str]) -> None:
    """
    Raises:
        UnsupportedError: the server did not look at something that it was asked for.
    """
    if "tools" in ignored:
        warnings.warn("the chat template does not use tools: the model is not told of them", stacklevel=2)
    others = [name for name in ignored if not name.startswith("tools")]
    if others:
        raise UnsupportedError(f"{', '.join(others)}: this server does not know it")
