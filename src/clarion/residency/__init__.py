"""Which weights live where."""

from clarion.residency.copied import Copied
from clarion.residency.mapped import Mapped
from clarion.residency.moving import Moving

Residency = Mapped | Copied | Moving

__all__ = ["Copied", "Mapped", "Moving", "Residency"]
