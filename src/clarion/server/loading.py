"""From a file to a model that serves many: the one place that chooses context and cache."""

from __future__ import annotations

from pathlib import Path

from clarion.loading import load
from clarion.model import Model
from clarion.programs import open_file
from clarion.server.settings import Settings


def needed_bytes(path: Path | None, settings: Settings) -> int:
    """What a model will take, before it is loaded."""
    with open_file(path) as file:
        weights = sum(tensor.n_bytes for tensor in file.tensors.values())
    return weights + (settings.cache_bytes or 0)


def load_model(path: Path | None, settings: Settings) -> Model:
    """The model, with context and cache for `settings.parallel` texts."""
    return load(path, context=settings.context, outputs=settings.parallel, **settings.loading)
