"""Folders of other programs in which GGUF files lie under names of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clarion.errors import FileError
from clarion.library.found import Found, measured
from clarion.library.quants import models_among, name_within, stem


@dataclass(frozen=True, slots=True)
class LmStudioFolder:
    """LM Studio's: PUBLISHER/REPOSITORY/FILE.gguf, mostly as on the hub."""

    folder: Path

    @property
    def source(self) -> str:
        return "lm-studio"

    @property
    def is_shared(self) -> bool:
        return True

    def models(self) -> Iterator[Found]:
        """Raises OSError."""
        for repository in sorted(self.folder.glob("*/*")):
            names = [path.relative_to(repository).as_posix() for path in repository.rglob("*.gguf")]
            models = models_among(name for name in names if (repository / name).is_file())
            name = f"{repository.parent.name}/{repository.name}"
            for model in models:
                if model.is_whole:
                    parts = tuple(repository / file for file in model.files)
                    size, when = measured(parts)
                    full = f"{name}:{name_within(model, models)}"
                    yield Found(
                        parts[0], full, self.source, size, model.quant, when, parts, name, file=model.name
                    )

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Raises FileError."""
        return _remove(found)


@dataclass(frozen=True, slots=True)
class LlamaCppFolder:
    """llama.cpp's: OWNER_NAME_FILE.gguf. Where the owner's name ends, nobody can tell from that."""

    folder: Path

    @property
    def source(self) -> str:
        return "llama.cpp"

    @property
    def is_shared(self) -> bool:
        return True

    def models(self) -> Iterator[Found]:
        """Raises OSError."""
        for model in models_among(path.name for path in self.folder.glob("*.gguf") if path.is_file()):
            if model.is_whole:
                parts = tuple(self.folder / file for file in model.files)
                size, when = measured(parts)
                yield Found(
                    parts[0], stem(model.name), self.source, size, model.quant, when, parts, file=model.name
                )

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Raises FileError."""
        return _remove(found)


def _remove(found: Found) -> list[Path]:
    try:
        for part in found.parts:
            part.unlink()
    except OSError as error:
        raise FileError(f"{error.filename}: cannot be removed: {error.strerror}") from error
    return list(found.parts)
