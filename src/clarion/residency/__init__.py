"""Which weights live where."""

from clarion.residency.copied import Copied
from clarion.residency.mapped import Mapped
from clarion.residency.replaced import Replaced

Residency = Mapped | Copied | Replaced

__all__ = ["Copied", "Mapped", "Replaced", "Residency"]
