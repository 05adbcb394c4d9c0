"""POST /tokenize, /detokenize, /apply-template: what a model makes of a text, without computing anything."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from clarion.model import Model
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.fields import read
from clarion.server.openai.conversations import (
    HARMLESS,
    UNSUPPORTED,
    Messages,
    check_length,
    conversation,
)

_TEXT: Final = "expected a text, or a list of texts and token ids"


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """The fields of a request.

    Attributes:
        add_special: with the tokens that the model expects at beginning and end.
        parse_special: whether names of control tokens in the text stand for them.
        with_pieces: what each token stands for is answered, too.
    """

    model: str | None = None
    content: Any = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The fields of a request. `skip_special`: control tokens have no text."""

    model: str | None = None
    tokens: list[int] = msgspec.field(default_factory=list)
    skip_special: bool = False


class TemplateRequest(Messages, kw_only=True):
    """The fields of a request."""

    add_generation_prompt: bool = True


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]  # bytes, where they are no text


async def tokenize(call: Call) -> None:
    """The ids of a text."""
    request, _ = await read(call, TokenizeRequest, unsupported={}, harmless=frozenset())
    parts = _parts(request.content)
    async with call.watch, call.server.pool.hold(call.server.pool.find(request.model)) as model:
        check_ids(model, "content", parts)
        ids = await asyncio.to_thread(
            mixed, model, parts, add_special=request.add_special, parse_special=request.parse_special
        )
        pieces = [_piece(model, token) for token in ids] if request.with_pieces else ids
    await call.answer({"tokens": pieces})


async def detokenize(call: Call) -> None:
    """The text of ids."""
    request, _ = await read(call, DetokenizeRequest, unsupported={}, harmless=frozenset())
    async with call.watch, call.server.pool.hold(call.server.pool.find(request.model)) as model:
        check_ids(model, "tokens", request.tokens)
        content = await asyncio.to_thread(model.detokenize, request.tokens, skip_special=request.skip_special)
    await call.answer({"content": content})


async def apply_template(call: Call) -> None:
    """The prompt of a conversation, as a chat would continue it."""
    request, given = await read(call, TemplateRequest, unsupported=UNSUPPORTED, harmless=HARMLESS)
    check_length(request.messages, call.server.settings.max_messages)
    async with call.watch, call.server.pool.hold(call.server.pool.find(request.model)) as model:
        prompt = await asyncio.to_thread(_written, call, model, request, given)
    await call.answer({"prompt": prompt})


def _written(call: Call, model: Model, request: TemplateRequest, given: dict[str, Any]) -> str:
    said = conversation(call, model, request, given)
    return said.text(add_generation_prompt=request.add_generation_prompt)


def mixed(
    model: Model, parts: list[str | int], *, add_special: bool = True, parse_special: bool = True
) -> list[int]:
    """The ids of texts and ids, one after the other. Only before the first one stands what begins a text."""
    ids: list[int] = []
    for i, part in enumerate(parts):
        if isinstance(part, int):
            ids.append(part)
        else:
            ids += model.tokenize(part, add_special=add_special and i == 0, parse_special=parse_special)
    return ids


def check_ids(model: Model, name: str, parts: list[str | int] | list[int]) -> None:
    """
    Raises:
        RefusedError: 400, the model has no such token.
    """
    for i, part in enumerate(parts):
        if isinstance(part, int) and not 0 <= part < model.n_vocab:
            raise bad(f"{name}[{i}]", f"found token {part}, expected 0 to {model.n_vocab - 1}")


def _parts(content: Any) -> list[str | int]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise bad("content", f"found {'none' if content is None else repr(content)[:40]}, {_TEXT}")
    for i, part in enumerate(content):
        if not isinstance(part, str) and type(part) is not int:
            raise bad(f"content[{i}]", f"found {part!r:.40}, {_TEXT}")
    return content


def _piece(model: Model, token: int) -> _Piece:
    piece = model.tokenizer.piece(token)
    try:
        return _Piece(token, piece.decode())
    except UnicodeDecodeError:
        return _Piece(token, list(piece))
