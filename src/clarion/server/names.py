"""Which models a server has: of paths and names, of a folder, of all places on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clarion.errors import FileError, ParameterError
from clarion.library import every, find
from clarion.server.pool import Served

BUILT_IN: Final = "clarion-tale"
# Of a split model, the part that stands for it; files beside models that are none.
_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-\d{5}")
_BESIDE: Final = re.compile(r"^mmproj|[-.]mmproj|imatrix", re.IGNORECASE)


class Folder:
    """The models of a folder and of those in it."""

    def __init__(self, folder: str) -> None:
        """
        Raises:
            FileError: it is no folder.
        """
        if not os.path.isdir(folder):
            raise FileError(f"{folder}: expected a folder with GGUF files")
        self._folder = folder

    def every(self) -> list[Served]:
        found: dict[str, Served] = {}
        for path in sorted(Path(self._folder).rglob("*.gguf")):
            part = _PART.fullmatch(path.stem)
            if _BESIDE.search(path.name) or (part and int(part["number"]) != 1):
                continue
            each = _of_file(path)
            if each.name in found:  # a file of the same name in another folder
                each.name = os.fspath(path.relative_to(self._folder).with_suffix(""))
            found[each.name] = each
        return list(found.values())

    def path(self, name: str) -> Path | None:
        return None


class Library:
    """Every model on this machine that has a name."""

    def every(self) -> list[Served]:
        found: dict[str, Served] = {}
        for each in every():
            if not each.is_old:
                found.setdefault(each.name, Served(each.name, each.path, created=int(each.modified)))
        return list(found.values())

    def path(self, name: str) -> Path | None:
        try:
            return find(name).path
        except (FileError, ParameterError):
            return None


def served(names: Sequence[str], aliases: Sequence[str]) -> list[Served]:
    """The models of these names or paths; without any, the one that comes with Clarion. The aliases are
    further names of the first.

    Raises:
        FileError: one is not there.
        ParameterError: two have one name.
    """
    found = [_named(name) for name in names] or [Served(BUILT_IN, None)]
    found[0].aliases = tuple(alias for alias in aliases if alias != found[0].name)
    known = [each.name for each in found]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise ParameterError(f"found two models named {twice!r}, expected different ones")
    return found


def _named(name: str) -> Served:
    found = find(name)
    each = _of_file(found.path)
    if found.source != "file":
        each.name = found.name
    return each


def _of_file(path: Path) -> Served:
    part = _PART.fullmatch(path.stem)
    try:
        created = int(path.stat().st_mtime)
    except OSError:
        created = 0
    return Served(part["stem"] if part else path.stem, path, created=created)
