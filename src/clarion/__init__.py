"""Clarion: an inference engine for language models on the machine you have.

import clarion

with clarion.load("model.gguf") as model:
    print(model.generate("Once upon a time").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion import errors
    from clarion.client.connection import Connection, connect
    from clarion.loading import load
    from clarion.model import Model
    from clarion.runtime.completion import Completion, Timings, TokenLogprob
    from clarion.runtime.figures import Figures
    from clarion.runtime.pieces import Piece
    from clarion.runtime.sampling import ChatOptions, Options
    from clarion.runtime.streams import AsyncTextStream, TextStream
    from clarion.tokenizer import Tokenizer

__version__ = "0.1.0"

# Where each name lives: numpy and the native module are only imported when one of them is used.
_HOMES = {
    "AsyncTextStream": "clarion.runtime.streams",
    "ChatOptions": "clarion.runtime.sampling",
    "Completion": "clarion.runtime.completion",
    "Connection": "clarion.client.connection",
    "Figures": "clarion.runtime.figures",
    "Model": "clarion.model",
    "Options": "clarion.runtime.sampling",
    "Piece": "clarion.runtime.pieces",
    "TextStream": "clarion.runtime.streams",
    "Timings": "clarion.runtime.completion",
    "TokenLogprob": "clarion.runtime.completion",
    "Tokenizer": "clarion.tokenizer",
    "connect": "clarion.client.connection",
    "load": "clarion.loading",
}

# What documents name, reachable without an import of its own.
_PACKAGES = ("convert", "errors", "evaluate", "gguf", "library", "quantize", "tokenizer")

__all__ = [
    "AsyncTextStream",
    "ChatOptions",
    "Completion",
    "Connection",
    "Figures",
    "Model",
    "Options",
    "Piece",
    "TextStream",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "connect",
    "errors",
    "load",
]


def __getattr__(name: str) -> object:
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"clarion.{name}")  # which makes it an attribute
    if name not in _HOMES:
        raise AttributeError(f"module 'clarion' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))]
