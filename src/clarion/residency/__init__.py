"""Which weights live where."""

from clarion.residency.copied import Copied
from clarion.residency.mapped import Mapped

Residency = Mapped | Copied

__all__ = ["Copied", "Mapped", "Residency"]
