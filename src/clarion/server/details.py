"""What OpenAI's form of answers has no place for, in a field `clarion` of each choice.

A request that has the field `clarion: true` gets it: the tokens of a text, what ended it, its seed, its
timings, and the text as the model wrote it, before reasoning was set apart. Of a stream, each chunk with
text has that of its piece, and the last one of each choice has the whole. With `clarion: "whole"`, texts of a
stream come in one piece each: whoever needs no more still hears, by comments, that the model computes.
`clarion.connect` asks so, and at POST /clarion/score for what `Model.score` gives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from clarion.runtime.completion import Completion, Timings, TokenLogprob
from clarion.runtime.pieces import Piece
from clarion.server.call import Call
from clarion.server.fields import read

# [token, logprob, [[token, logprob], ...]], where an infinite logprob is null.
Logprob: TypeAlias = tuple[int, float, tuple[tuple[int, float], ...]]


Wanted: TypeAlias = bool | Literal["whole"]


class PieceDetails(msgspec.Struct):
    """Of a piece of a stream: its text and its tokens; how long the prompt was."""

    text: str
    tokens: tuple[int, ...]
    logprobs: list[Logprob] | None
    prompt_tokens: int


class Details(msgspec.Struct):
    """Of a whole text. `timings` are seconds, and numbers of tokens."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    stopped_by: str | int | None
    logprobs: list[Logprob] | None
    seed: int
    timings: Timings


Found: TypeAlias = PieceDetails | Details | msgspec.UnsetType


def details(wanted: Wanted, item: Piece | Completion, prompt_tokens: int = 0) -> Found:
    """The details of a piece, or of a whole text; nothing where they are not wanted."""
    if not wanted:
        return msgspec.UNSET
    logprobs = None if item.logprobs is None else _logprobs(item.logprobs)
    if isinstance(item, Piece):
        return PieceDetails(str(item), item.tokens, logprobs, prompt_tokens)
    return Details(
        item.text, item.tokens, item.finish_reason, item.stopped_by, logprobs, item.seed, item.timings
    )


def _logprobs(found: Iterable[TokenLogprob]) -> list[Logprob]:
    return [(each.token, each.logprob, each.top) for each in found]


class ScoreRequest(msgspec.Struct, kw_only=True):
    """The arguments of `Model.score`."""

    tokens: list[int]
    model: str | None = None
    first: int = 1
    top: int = 0


class Scores(msgspec.Struct):
    """What `Model.score` gives."""

    logprobs: list[Any]  # Logprob, of which a schema of OpenAPI knows no form


async def score(call: Call) -> None:
    """How probable each token of a text is after those before it."""
    request, _ = await read(call, ScoreRequest, unsupported={}, harmless=frozenset())
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served) as model:
        found = await model.ascore(request.tokens, first=request.first, top=request.top)
        call.usage = (len(request.tokens), 0)
        await call.answer(Scores(_logprobs(found)))
