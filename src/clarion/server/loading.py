"""From a file to a model that serves many: the one place that chooses context and cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from clarion.loading import load
from clarion.loading import needed_bytes as needed
from clarion.model import Model
from clarion.programs import open_file
from clarion.server.settings import Settings

_SHARE: Final = 4  # a cache has this part of the memory of all models, where nobody says how much
_BESIDE: Final = 256 << 20  # bytes that a model may need beside weights and cache
_LEAST: Final = 64 << 20  # bytes of a cache where weights leave no room


def needed_bytes(path: Path | None, settings: Settings, memory_bytes: int) -> int:
    """What a model will take, before it is loaded. `memory_bytes`: what all models may take together.

    Raises as `clarion.load`.
    """
    how = {name: value for name, value in settings.loading.items() if name not in ("weights", "threads")}
    return needed(path, **_sizes(path, settings, memory_bytes), **how)


def load_model(path: Path | None, settings: Settings, memory_bytes: int) -> Model:
    """The model, with context and cache for `settings.parallel` texts. Raises as `clarion.load`."""
    model = load(
        path,
        **_sizes(path, settings, memory_bytes),
        **settings.loading,
        prefix_dir=settings.prefix_dir,
        prefix_bytes=settings.prefix_bytes,
    )
    _ = model.tokenizer  # built now, so that no request waits for it
    return model


def _sizes(path: Path | None, settings: Settings, memory_bytes: int) -> dict[str, Any]:
    cache_bytes = settings.cache_bytes
    if cache_bytes is None:
        with open_file(path) as file:
            weights = sum(tensor.n_bytes for tensor in file.tensors.values())
        cache_bytes = min(memory_bytes // _SHARE, max(memory_bytes - weights - _BESIDE, _LEAST))
    context = "most" if settings.context is None else settings.context
    return {"context": context, "cache_bytes": cache_bytes, "outputs": settings.parallel}
