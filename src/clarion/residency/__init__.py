"""Which weights live where."""

from clarion.residency.mapped import Mapped

__all__ = ["Mapped"]
