"""GET /health: whether a model can answer. It needs no key, takes no place in a line and loads nothing.

A model that was unloaded because nobody used it can answer: it is loaded when it is asked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clarion.server.call import Call
from clarion.server.errors import RefusedError, body

LIVE: Final = "/livez"
PATHS: Final = ("/health", "/v1/health", "/readyz", LIVE)
_OK: Final = b'{"status":"ok"}'
_LOADING: Final = "loading model"


async def ready(call: Call) -> None:
    """200 where a model can answer; 503 until the first one is loaded, and when the server ends."""
    if call.server.is_ready:
        await call.answer_bytes(_OK)
        return
    error = RefusedError(503, _LOADING, code="loading_model")
    content = {"status": _LOADING, **msgspec.json.decode(body(error))}
    await call.answer(content, 503)


async def live(call: Call) -> None:
    """200 as long as the server answers at all."""
    await call.answer_bytes(_OK)
