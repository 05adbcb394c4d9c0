"""Removing a model that is known by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clarion.errors import FileError
from clarion.library.found import Found
from clarion.library.places import Place
from clarion.library.reference import HubName, parse
from clarion.library.search import everywhere, find


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be removed, and has not been yet.

    Attributes:
        pinned: whether the name said a revision: the model stays in others then.
    """

    place: Place
    found: Found
    pinned: bool

    def run(self) -> list[Path]:
        """Removes it; returns the files that are gone, which took room. Raises FileError."""
        return self.place.remove(self.found, pinned=self.pinned)


def removal(name: str, *, force: bool = False) -> Removal:
    """What removing a model means. Nothing is removed yet.

    Args:
        force: also from folders of other programs.

    Raises:
        FileError: it is another program's, or a file that was given by its path.
        NameNotFoundError: as `find`.
    """
    found = find(name)
    if found.source == "file":
        raise FileError(f"{name}: this is a file, not the name of a model: rm {name}")
    reference = parse(name)
    pinned = isinstance(reference, HubName) and reference.revision is not None
    for place, other in everywhere():
        if (other.path, other.name) == (found.path, found.name):
            if place.is_shared and not force:
                raise FileError(
                    f"{name}: it lies in a folder of {place.source}, {place.folder}: remove it with that "
                    "program, or with --force"
                )
            return Removal(place, found, pinned)
    raise FileError(f"{name}: it is gone meanwhile")
