"""GET /props: what a model and the server are, as clients of llama-server ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from clarion import __version__
from clarion.programs import open_file
from clarion.runtime.recommended import recommended
from clarion.runtime.sampling import Options
from clarion.server.call import Call
from clarion.server.llama.settings import settings_of
from clarion.server.pool import Served


async def props(call: Call) -> None:
    """Of the model that `?model=` names, or the first one. One that is not loaded is not loaded for this:
    what its file says is told, and that it sleeps."""
    served = call.server.pool.find(call.query.get("model"))
    await call.answer(await asyncio.to_thread(_props, call, served))


def _props(call: Call, served: Served) -> dict[str, Any]:
    model = served.model
    if model is not None:
        return _told(call, served, model.metadata, model.context)
    with open_file(served.path) as file:
        return _told(call, served, file.metadata, None)


def _told(call: Call, served: Served, metadata: Mapping[str, Any], context: int | None) -> dict[str, Any]:
    settings = call.server.settings
    made_for = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    chosen = cast(Options, {**recommended(cast(Any, metadata)), **settings.options})
    return {
        "default_generation_settings": {
            "id": 0,
            "n_ctx": context or settings.context or made_for,
            "params": settings_of(chosen),
        },
        "total_slots": settings.parallel,
        "model_alias": served.name,
        # No more than its name: where files lie is nobody's business.
        "model_path": served.path.name if served.path is not None else served.name,
        "modalities": {"vision": False, "audio": False},
        "chat_template": settings.chat_template or metadata.get("tokenizer.chat_template", ""),
        "bos_token": _token(metadata, "bos"),
        "eos_token": _token(metadata, "eos"),
        "build_info": f"clarion {__version__}",
        "is_sleeping": context is None,
    }


def _token(metadata: Mapping[str, Any], name: str) -> str:
    found, tokens = metadata.get(f"tokenizer.ggml.{name}_token_id"), metadata.get("tokenizer.ggml.tokens")
    if not isinstance(found, int) or tokens is None or not 0 <= found < len(tokens):
        return ""
    return str(tokens[found])
