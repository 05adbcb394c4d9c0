"""A model that lies on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """A model on this machine.

    Attributes:
        path: the GGUF file; of a split model the first part.
        name: what `find` takes; of a file that was given by its path, the path.
        source: the place that it lies in, as "hub" or "ollama"; "file" for a path.
        bytes: of all parts.
        quant: as "Q4_K_M", where names tell; else empty.
        modified: when it came, in seconds since 1970.
        parts: all files, in order; the first is `path`.
        repository: of the hub, as owner/name; empty where the place does not know.
        revision: the commit of that repository; empty likewise.
        file: the file's name in its repository or folder; empty where it has no name of its own.
        is_old: whether there is a newer version of it here; only a name with a revision means it then.
    """

    path: Path
    name: str
    source: str
    bytes: int
    quant: str = ""
    modified: float = 0.0
    parts: tuple[Path, ...] = ()
    repository: str = ""
    revision: str = ""
    file: str = ""
    is_old: bool = False


def measured(paths: Iterable[Path]) -> tuple[int, float]:
    """Bytes of all files, and when the newest of them was written. Raises OSError."""
    found = [os.stat(path) for path in paths]
    return sum(stat.st_size for stat in found), max(stat.st_mtime for stat in found)
