"""POST /v1/embeddings: vectors of texts."""

from __future__ import annotations

import base64
from typing import Any, Final, Literal

import msgspec

from clarion.model import Model
from clarion.plan.output import Pooling
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.fields import Off, is_empty, read
from clarion.server.openai.types import Usage
from clarion.server.threads import in_slices

AT_ONCE: Final = 32  # texts between which a client may leave


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """The fields of a request."""

    model: str | None = None
    input: Any = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    truncate: bool = False
    pooling: Pooling | None = None
    normalize: bool = True
    prompt: str | None = None


class _Embedding(msgspec.Struct):
    object: str
    index: int
    embedding: list[float] | str


class _Embeddings(msgspec.Struct):
    object: str
    data: list[_Embedding]
    model: str
    usage: Usage


_HARMLESS: Final = frozenset({"user"})
_UNSUPPORTED: Final[dict[str, Off]] = {"truncate_prompt_tokens": is_empty}


async def embed(call: Call) -> None:
    """The vectors of one text, or of several."""
    request, _ = await read(call, EmbeddingRequest, unsupported=_UNSUPPORTED, harmless=_HARMLESS)
    texts = _texts(request.input, call.server.settings.max_messages)
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served) as model:

        def vectors(some: list[str | list[int]]) -> tuple[int, list[_Embedding]]:
            return _vectors(model, request, some)

        found = await in_slices(vectors, texts, AT_ONCE)
        data = [each for _, some in found for each in some]
        for index, each in enumerate(data):
            each.index = index
        n = sum(n for n, _ in found)
        call.usage = (n, 0)
        await call.answer(_Embeddings("list", data, served.name, Usage(n, 0, n)))


def _vectors(
    model: Model, request: EmbeddingRequest, texts: list[str | list[int]]
) -> tuple[int, list[_Embedding]]:
    """The tokens of some texts, and their vectors."""
    n = sum(len(text) if isinstance(text, list) else len(model.tokenize(text)) for text in texts)
    rows = model.embed(
        texts,
        pooling=request.pooling,
        normalize=request.normalize,
        dimensions=request.dimensions,
        prompt=request.prompt,
        truncate=request.truncate,
    )  # [n, width]
    if request.encoding_format == "base64":
        # 32-bit floats, the low byte first.
        return n, [
            _Embedding("embedding", 0, base64.b64encode(row.astype("<f4").tobytes()).decode()) for row in rows
        ]
    return n, [_Embedding("embedding", 0, row.tolist()) for row in rows]


def _texts(given: Any, most: int) -> list[str | list[int]]:
    """The texts of a request: a text, ids, or a list of either."""
    expected = "expected a text, token ids, or a list of these"
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise bad("input", f"found {'none' if given is None else repr(given)[:40]}, {expected}")
    if all(type(item) is int for item in given):
        return [given]
    if len(given) > most:
        raise bad("input", f"found {len(given)} texts, expected {most} at most (--max-messages)")
    for i, item in enumerate(given):
        is_ids = isinstance(item, list) and item and all(type(token) is int for token in item)
        if not isinstance(item, str) and not is_ids:
            raise bad(f"input[{i}]", f"found {item!r:.40}, expected a text or token ids")
    return given
