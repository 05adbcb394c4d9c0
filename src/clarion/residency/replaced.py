"""Weights of the file, of which some are replaced by other bytes."""

from __future__ import annotations

from collections.abc import Mapping

from clarion._native import files
from clarion.residency.store import Policy, Tensor, Unit, place_in_file


class Replaced(Policy):
    """All weights lie in the mapping, until `use` gives other bytes for some."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._units: Mapping[str, Unit] = {}
        self._replaced: set[str] = set()

    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        self._units = units
        place_in_file(units, self._tensors)

    def use(self, data: Mapping[str, object]) -> None:
        """From the next run on these weights' bytes, rows as in a file, are those; all others the file's.

        Raises:
            ValueError: other bytes than a weight has, or a vector, which programs read when they are built.
        """
        for name in data:
            weight = self._units[name].weight
            if weight.rows * weight.experts == 1:
                raise ValueError(f"weight {name!r}: found a vector, expected a matrix")
        place_in_file({name: self._units[name] for name in self._replaced - data.keys()}, self._tensors)
        self._replaced = set()
        for name, values in data.items():
            self._replaced.add(name)
            self._units[name].place_all(values)
