"""Which policy is best for a model, and its store."""

from __future__ import annotations

from collections.abc import Sequence

from clarion.errors import DeviceError, ParameterError
from clarion.host.memory import memory
from clarion.residency.copied import Copied
from clarion.residency.copying import Origin
from clarion.residency.mapped import Mapped
from clarion.residency.moving import Moving
from clarion.residency.store import Policy, Store, Weight

WEIGHTS = ("auto", "mapped", "copied", "moving")

# So much is copied before anybody notices, in some ten milliseconds.
AT_ONCE_BYTES = 32 << 20
# Of the memory that is available: the rest of the machine has work to do too.
LARGEST_SHARE = 0.5


def make_store(weights: Sequence[Weight], how: str, origin: Origin) -> Store:
    """The store of a model's weights; `how` is one of WEIGHTS.

    Raises:
        ParameterError: `how` is something else.
        DeviceError: there is no memory for copies.
    """
    if how not in WEIGHTS:
        raise ParameterError(f"weights: found {how!r}, expected one of {', '.join(WEIGHTS)}")
    n_bytes = sum(weight.n_bytes for weight in weights)
    try:
        return Store(weights, _policy(how, n_bytes, origin))
    except MemoryError:
        gigabytes = n_bytes / 1e9
        raise DeviceError(f"a copy of the weights takes {gigabytes:.1f} GB: load them mapped") from None


def best_policy(n_bytes: int, available: int) -> str:
    """Where so many bytes of weights are best, with so many bytes of memory: copied, moving or mapped."""
    if n_bytes <= AT_ONCE_BYTES:
        return "copied"
    return "moving" if n_bytes <= LARGEST_SHARE * available else "mapped"


def _policy(how: str, n_bytes: int, origin: Origin) -> Policy:
    match best_policy(n_bytes, memory().available) if how == "auto" else how:
        case "copied":
            return Copied(origin)
        case "moving":
            return Moving(origin)
        case _:
            return Mapped(origin.tensors)
