"""Which weights live where."""

from clarion.residency.copied import Copied
from clarion.residency.mapped import Mapped
from clarion.residency.moving import Moving
from clarion.residency.panels import Panels
from clarion.residency.replaced import Replaced

Residency = Mapped | Copied | Moving | Replaced

__all__ = ["Copied", "Mapped", "Moving", "Panels", "Replaced", "Residency"]
