"""Some weights replaced by other bytes, all others where they are."""

from __future__ import annotations

from collections.abc import Mapping

from clarion.residency.copied import Copied
from clarion.residency.mapped import Mapped


class Replaced:
    """Names weights to bytes given here, or to those of another residency."""

    place = "replaced"

    def __init__(self, others: Mapped | Copied, data: Mapping[str, object]) -> None:
        self._others = others
        self._data = data

    def data(self, name: str) -> object:
        """The bytes of a weight, an array of uint8."""
        return self._data[name] if name in self._data else self._others.data(name)

    def is_panels(self, name: str) -> bool:
        """Whether they are panels instead of rows: never those given here."""
        return name not in self._data and self._others.is_panels(name)
