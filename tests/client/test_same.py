"""A Connection has what a Model has, in the same words, or says why not."""

from __future__ import annotations

import inspect

from clarion.client.connection import _LOCAL, Connection
from clarion.model import Model

# Attributes that are set when one is made, or properties.
ATTRIBUTES = {"path", "context", "n_vocab", "defaults"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_each_method_of_a_model_is_there_or_refused() -> None:
    methods = public(Model) - set(_LOCAL)
    assert methods <= public(Connection)
    assert public(Connection) - methods <= ATTRIBUTES, "what a model does not have"
    assert not set(_LOCAL) & public(Connection)


def test_each_attribute_of_a_model_is_there_or_refused(model: Model, connection: Connection) -> None:
    attributes = {name for name in vars(model) if not name.startswith("_")}
    for name in attributes | public(Model):
        assert name in _LOCAL or hasattr(connection, name), name


def test_signatures_are_the_same() -> None:
    methods = [name for name in public(Model) - set(_LOCAL) if inspect.isfunction(getattr(Model, name))]
    assert {"generate", "achat_stream", "embed", "score", "close"} <= set(methods)
    for name in [*methods, "__enter__", "__exit__", "__repr__", "__reduce_ex__"]:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Connection, Model))
        assert ours.parameters == theirs.parameters, name
        if name != "__enter__":
            assert ours.return_annotation == theirs.return_annotation, name
        kinds = {inspect.iscoroutinefunction(getattr(kind, name)) for kind in (Connection, Model)}
        assert len(kinds) == 1, name
