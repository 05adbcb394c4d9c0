"""POST /v1/rerank: documents by how well they answer a query, in the form that Jina and Cohere share."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clarion.model import Model
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.fields import Off, is_empty, read
from clarion.server.openai.types import Usage, new_id
from clarion.server.threads import in_slices

AT_ONCE: Final = 32  # documents between which a client may leave


class RerankRequest(msgspec.Struct, kw_only=True):
    """The fields of a request."""

    query: str
    documents: list[Any]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool = False


class _Document(msgspec.Struct):
    text: str


class _Result(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: _Document | None = None


class Ranked(msgspec.Struct):
    id: str
    object: str
    model: str
    results: list[_Result]
    usage: Usage


_UNSUPPORTED: Final[dict[str, Off]] = {
    "rank_fields": is_empty,
    "max_chunks_per_doc": is_empty,
    "max_tokens_per_doc": is_empty,
}
_HARMLESS: Final = frozenset({"user", "return_embeddings"})


async def rerank(call: Call) -> None:
    """Documents with their scores, the best first."""
    request, _ = await read(call, RerankRequest, unsupported=_UNSUPPORTED, harmless=_HARMLESS)
    most = call.server.settings.max_messages
    if not 1 <= len(request.documents) <= most:
        raise bad("documents", f"found {len(request.documents)}, expected 1 to {most}")
    if request.top_n is not None and request.top_n < 1:
        raise bad("top_n", f"found {request.top_n}, expected 1 or more")
    texts = [_text(i, document) for i, document in enumerate(request.documents)]
    served = call.server.pool.find(request.model)
    async with call.watch, call.server.pool.use(served) as model:

        def scores(some: list[str]) -> tuple[int, list[float]]:
            return _scores(model, request, some)

        found = await in_slices(scores, texts, AT_ONCE)
        every = [score for _, some in found for score in some]
        order = sorted(range(len(texts)), key=lambda i: -every[i])[: request.top_n]
        results = [
            _Result(i, every[i], _Document(texts[i]) if request.return_documents else None) for i in order
        ]
        n = sum(n for n, _ in found)
        call.usage = (n, 0)
        await call.answer(Ranked(new_id("rerank"), "list", served.name, results, Usage(n, 0, n)))


def _scores(model: Model, request: RerankRequest, texts: list[str]) -> tuple[int, list[float]]:
    """The tokens of some documents and the query before each, and the documents' scores."""
    of_query = len(model.tokenize(request.query))
    n = sum(of_query + len(model.tokenize(text, add_special=False)) for text in texts)
    scores = model.rerank(request.query, texts, truncate=request.truncate)
    return n, [float(score) for score in scores]


def _text(i: int, document: Any) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise bad(f"documents[{i}]", f'found {document!r:.40}, expected a text or {{"text": ...}}')
    return text
