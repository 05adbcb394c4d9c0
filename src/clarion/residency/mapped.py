"""Weights that stay where the file's mapping has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Source(Protocol):
    """Something with bytes: a tensor of the file."""

    @property
    def view(self) -> object: ...


class Mapped:
    """Names weights to their bytes in the mapping. Nothing is copied: pages come from disk when they are
    touched, and the operating system takes them back when memory is short."""

    place = "mapped"

    def __init__(self, tensors: Mapping[str, Source]) -> None:
        self._tensors = tensors

    def data(self, name: str) -> object:
        """The bytes of a weight, an array of uint8 that views the mapping."""
        return self._tensors[name].view

    def is_panels(self, name: str) -> bool:
        """Whether they are panels instead of rows: never in a file."""
        return False
