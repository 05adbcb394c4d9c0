"""Requests on their way: what is sent, and what comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from clarion.client.fields import Asked
from clarion.client.http import Http
from clarion.client.texts import Text
from clarion.errors import CancelledError, ClarionError, ServerError, UnreachableError
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
        return read_as(http.url, await http.post(self._path, self._fields), self._read)


class Whole(Question[list[Completion]]):
    """Texts that are wanted at their ends.

    They come as a stream, in which Clarion's servers say that they compute, however long that takes; others
    need not know how to write several as a stream.
    """

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
        if self._asked.has_details:
            return await self._ends(http)
        answer = await http.post(self._asked.path, self._asked.fields)
        return read_as(http.url, answer, self._completions)

    async def _ends(self, http: Http) -> list[Completion]:
        texts = [Text(self._asked) for _ in range(self._asked.n)]

        def take(event: Any) -> None:
            for choice in event["choices"]:
                texts[choice["index"]].take(choice)

        async with http.events(self._asked.path, {**self._asked.fields, "clarion": "whole"}) as events:
            async for event in events:
                read_as(http.url, event, take)
        check_ended(http.url, *texts)
        return [text.whole() for text in texts]

    def _completions(self, answer: Any) -> list[Completion]:
        choices = sorted(answer["choices"], key=lambda choice: cast(int, choice["index"]))
        if [choice["index"] for choice in choices] != list(range(self._asked.n)):
            raise ServerError(f"the server answers with {len(choices)} texts, expected {self._asked.n}")
        found = []
        for choice in choices:
            text = Text(self._asked)
            text.take(choice)
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
        fields = dict(self._asked.fields)
        if not self._asked.has_details:
            fields["stream_options"] = {"include_usage": True}
        async with http.events(self._asked.path, fields) as events:
            async for event in events:
                read_as(http.url, event, lambda event: self._take(event, put))
        check_ended(http.url, self._text)
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


def check_ended(url: str, *texts: Text) -> None:
    """
    Raises:
        UnreachableError: the server has not said how a text ended.
    """
    if not all(text.is_over for text in texts):
        raise UnreachableError(f"{url}: the answer ends in its middle: the server is gone")


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
