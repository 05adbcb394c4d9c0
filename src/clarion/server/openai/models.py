"""The models that can be asked for."""

from __future__ import annotations

import msgspec

from clarion.server.call import Call
from clarion.server.pool import Served


class _Model(msgspec.Struct, omit_defaults=True):
    id: str
    created: int
    owned_by: str
    object: str
    is_loaded: bool
    aliases: list[str] = []
    # Of a loaded one:
    context_length: int | None = None
    n_vocab: int | None = None


class _Models(msgspec.Struct):
    object: str
    data: list[_Model]


async def every(call: Call) -> None:
    """GET /v1/models"""
    await call.answer(_Models("list", [_described(served) for served in call.server.pool.all()]))


async def one(call: Call) -> None:
    """GET /v1/models/{name}"""
    await call.answer(_described(call.server.pool.find(call.path["name"])))


def _described(served: Served) -> _Model:
    model = served.model
    return _Model(
        served.name,
        served.created,
        "clarion",
        "model",
        model is not None,
        list(served.aliases),
        model.context if model is not None else None,
        model.n_vocab if model is not None else None,
    )
