"""Where the weights lie: one store, and policies of it."""

from clarion.residency.choice import WEIGHTS, make_store
from clarion.residency.copied import Copied
from clarion.residency.copying import Origin
from clarion.residency.mapped import Mapped
from clarion.residency.moving import Moving
from clarion.residency.replaced import Replaced
from clarion.residency.store import Policy, Store

__all__ = [
    "WEIGHTS",
    "Copied",
    "Mapped",
    "Moving",
    "Origin",
    "Policy",
    "Replaced",
    "Store",
    "make_store",
]
