"""Which models a server has: of paths, of names, and of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from clarion.errors import FileError, ParameterError
from clarion.server.pool import Served

# Of a split model, the part that stands for it; further files that are no models of their own.
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-\d{5}")
_BESIDE = re.compile(r"^mmproj|[-.]mmproj|imatrix", re.IGNORECASE)
BUILT_IN = "clarion-tale"


def served(paths: Sequence[str], aliases: Sequence[str]) -> list[Served]:
    """The models of these files. The aliases are further names of the first.

    Raises:
        FileError: one is not there.
        ParameterError: two have one name.
    """
    found = [_of_file(Path(path)) for path in paths]
    for path in paths:
        if not os.path.exists(path):
            from clarion.names import not_there

            raise not_there(Path(path))
    if not found:
        found = [Served(BUILT_IN, None)]
    found[0].aliases = tuple(alias for alias in aliases if alias != found[0].name)
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ParameterError(f"found two models named {twice!r}, expected different ones")
    return found


def of_folder(folder: str) -> list[Served]:
    """The models of a folder and of those in it, as they lie there now.

    Raises:
        FileError: it is no folder.
    """
    if not os.path.isdir(folder):
        raise FileError(f"{folder}: expected a folder with GGUF files")
    paths = sorted(Path(folder).rglob("*.gguf"))
    found: dict[str, Served] = {}
    for path in paths:
        part = _PART.fullmatch(path.stem)
        if _BESIDE.search(path.name) or (part and int(part["number"]) != 1):
            continue
        each = _of_file(path)
        if each.name in found:  # a file of the same name in another folder
            each.name = os.fspath(path.relative_to(folder).with_suffix(""))
        found[each.name] = each
    return list(found.values())


def _of_file(path: Path) -> Served:
    part = _PART.fullmatch(path.stem)
    try:
        created = int(path.stat().st_mtime)
    except OSError:
        created = 0
    return Served(part["stem"] if part else path.stem, path, created=created)
