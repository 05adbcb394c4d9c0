"""Clarion: an inference engine for language models on the machine you have.

import clarion

with clarion.load("model.gguf") as model:
    print(model.generate("Once upon a time").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion.model import Model, load
    from clarion.runtime.completion import Completion, Timings, TokenLogprob
    from clarion.runtime.sampling import Options
    from clarion.runtime.streams import AsyncTextStream, TextStream
    from clarion.tokenizer import Tokenizer

__version__ = "0.1.0"

# Where each name lives: numpy and the native module are only imported when one of them is used.
_HOMES = {
    "AsyncTextStream": "clarion.runtime.streams",
    "Completion": "clarion.runtime.completion",
    "Model": "clarion.model",
    "Options": "clarion.runtime.sampling",
    "TextStream": "clarion.runtime.streams",
    "Timings": "clarion.runtime.completion",
    "TokenLogprob": "clarion.runtime.completion",
    "Tokenizer": "clarion.tokenizer",
    "load": "clarion.model",
}

__all__ = [
    "AsyncTextStream",
    "Completion",
    "Model",
    "Options",
    "TextStream",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'clarion' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
