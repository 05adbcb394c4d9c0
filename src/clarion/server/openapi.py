"""GET /openapi.json: the server's own description, by OpenAPI 3.1.

It is made of the table of routes and of the types that read requests and write answers, so it says what the
server does. A field that may be left out may be null, too, and a request may have further fields
(`clarion.server.fields`); neither is written down here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from clarion import __version__
from clarion.server import details, metrics, running
from clarion.server.call import Call
from clarion.server.errors import ErrorBody
from clarion.server.llama import completion, slots, tokens
from clarion.server.openai import chat, completions, embeddings, models, rerank
from clarion.server.openai.types import ChatReply, TextReply

Handle = Callable[[Call], Awaitable[None]]
Routes = Sequence[tuple[str, str, Handle]]

PATH: Final = "/openapi.json"
_REFERENCE: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Shape:
    """What an endpoint takes and gives.

    Attributes:
        request: the body's type; None: it has none.
        answer: the type of the answer; None: an object or a list of JSON.
        media: the answer's type of content.
        query: names behind the `?`.
    """

    request: type[msgspec.Struct] | None = None
    answer: type[msgspec.Struct] | None = None
    media: str = _JSON
    query: tuple[str, ...] = ()


# Of the functions in the table of routes. What is not here takes no body and gives some JSON.
SHAPES: Final[dict[Handle, Shape]] = {
    models.every: Shape(answer=models.Models),
    models.one: Shape(answer=models.Known),
    completions.complete: Shape(completions.CompletionRequest, TextReply),
    chat.answer: Shape(chat.ChatRequest, ChatReply),
    embeddings.embed: Shape(embeddings.EmbeddingRequest, embeddings.Embeddings),
    details.score: Shape(details.ScoreRequest, details.Scores),
    rerank.rerank: Shape(rerank.RerankRequest, rerank.Ranked),
    metrics.metrics: Shape(media="text/plain"),
    running.running: Shape(answer=running.Loads),
    tokens.tokenize: Shape(tokens.TokenizeRequest),
    tokens.detokenize: Shape(tokens.DetokenizeRequest),
    tokens.apply_template: Shape(tokens.TemplateRequest),
    completion.complete: Shape(completion.NativeRequest),
    completion.fill: Shape(completion.InfillRequest),
    slots.slots: Shape(query=("model",)),
    slots.act: Shape(slots.SlotRequest, query=("action",)),
}


def endpoint(routes: Routes) -> Handle:
    """The endpoint that describes these routes."""

    async def describe(call: Call) -> None:
        """This description."""
        await call.answer(description((*routes, ("GET", PATH, describe))))

    return describe


def description(routes: Routes) -> dict[str, Any]:
    """The whole of it, as JSON has it."""
    used: set[type[msgspec.Struct]] = {ErrorBody}
    for shape in SHAPES.values():
        used |= {kind for kind in (shape.request, shape.answer) if kind is not None}
    kinds = sorted(used, key=lambda kind: kind.__name__)
    written, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    schemas = dict(zip(kinds, written, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handle in routes:
        name = re.sub(r"{(\w+):\w+}", r"{\1}", path)
        paths.setdefault(name, {})[method.lower()] = _operation(name, handle, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Clarion", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, handle: Handle, schemas: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    shape = SHAPES.get(handle, Shape())
    content: dict[str, Any] = {shape.media: {"schema": schemas[shape.answer] if shape.answer else {}}}
    if shape.request is not None and "stream" in shape.request.__struct_fields__:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"description": "An error.", "content": {_JSON: {"schema": schemas[ErrorBody]}}}
    found: dict[str, Any] = {
        "summary": (handle.__doc__ or "").strip().partition("\n")[0],
        "responses": {"200": {"description": "The answer.", "content": content}, "4XX": error, "5XX": error},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", path)
    ] + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in shape.query]
    if parameters:
        found["parameters"] = parameters
    if shape.request is not None:
        body = {_JSON: {"schema": schemas[shape.request]}}
        found["requestBody"] = {"required": True, "content": body}
    return found
