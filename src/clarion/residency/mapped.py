"""Weights that stay where the file's mapping has them."""

from __future__ import annotations

from collections.abc import Mapping

from clarion._native import files
from clarion.residency.store import Policy, Tensor, Unit, place_in_file


class Mapped(Policy):
    """Nothing is copied: pages come from disk when they are touched, and the operating system takes them back
    when memory is short."""

    reads_file = True

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        place_in_file(units, self._tensors)
