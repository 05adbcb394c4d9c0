"""The models that can be asked for."""

from __future__ import annotations

import re

import msgspec

from clarion.model import Model
from clarion.server.call import Call
from clarion.server.pool import Served


class _Meta(msgspec.Struct):
    """What a file holds: parameters, bytes, and for how many tokens the model was made."""

    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_params: int
    size: int


class _Model(msgspec.Struct, omit_defaults=True):
    id: str
    created: int
    owned_by: str
    object: str
    is_loaded: bool
    aliases: list[str] = []
    context_length: int | None = None  # of a loaded one
    meta: _Meta | None = None  # likewise


class _Models(msgspec.Struct):
    object: str
    data: list[_Model]
    models: list[_Model] | msgspec.UnsetType = msgspec.UNSET


async def every(call: Call) -> None:
    """GET /v1/models"""
    found = _Models("list", [_described(served) for served in call.server.pool.all()])
    if "client_version" in call.query:
        # One coding client fails without a list of this name. Its entries have fields that are known to its
        # maker alone; of an empty list it takes that it knows no more than before.
        found.models = []
    await call.answer(found)


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
        _meta(model) if model is not None else None,
    )


def _meta(model: Model) -> _Meta:
    h = model.program.hyperparameters
    return _Meta(h.n_vocab, h.context_length, h.n_embd, h.n_parameters, _size(model))


def _size(model: Model) -> int:
    """Bytes of the model's file, or of all its parts; 0 where they have gone."""
    path = model.path
    part = re.fullmatch(r"(.+)-\d{5}(-of-\d{5}\.gguf)", path.name)
    try:
        if part is None:
            return path.stat().st_size
        begins, ends = part[1], part[2]
        return sum(
            each.stat().st_size
            for each in path.parent.iterdir()
            if re.fullmatch(rf"{re.escape(begins)}-\d{{5}}{re.escape(ends)}", each.name)
        )
    except OSError:
        return 0
