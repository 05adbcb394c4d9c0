"""The table of places in which models lie on a machine, in the order in which they are searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from clarion.library import environment
from clarion.library.addresses import AddressFolder
from clarion.library.found import Found
from clarion.library.hub_cache import HubCache
from clarion.library.ollama import OllamaFolder
from clarion.library.others import LlamaCppFolder, LmStudioFolder


class Place(Protocol):
    """A folder of models.

    Attributes:
        source: what people call it.
        is_shared: whether it is another program's, so that nothing is removed there without force.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def source(self) -> str: ...

    @property
    def is_shared(self) -> bool: ...

    def models(self) -> Iterator[Found]:
        """All that can be read there. Raises OSError."""
        ...

    def remove(self, found: Found, *, pinned: bool = False) -> list[Path]:
        """Removes one of them; returns the files that are gone, which took room. Raises FileError.

        pinned: only of the commit that it was found in, where a place has several."""
        ...


def own_addresses() -> AddressFolder:
    """Where files of addresses are kept."""
    return AddressFolder(environment.own_folder())


def own_ollama() -> OllamaFolder:
    """Where models of Ollama's registry are kept that Clarion fetched."""
    return OllamaFolder(environment.own_folder() / "ollama", "clarion", False)


def places() -> list[Place]:
    """All places, each folder once."""
    table: list[Place] = [
        own_addresses(),
        own_ollama(),
        HubCache(environment.hub_cache()),
        *(OllamaFolder(folder, "ollama", True) for folder in environment.ollama_folders()),
        *(LmStudioFolder(folder) for folder in environment.lm_studio_folders()),
        *(LlamaCppFolder(folder) for folder in environment.llama_cpp_folders()),
    ]
    return list({str(place.folder): place for place in reversed(table)}.values())[::-1]
