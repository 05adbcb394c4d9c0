"""Pass: where each weight lives while the model runs.

There is one place so far: the file's own mapping, read by the processor. The pass decides before memory is
laid out, because what moves elsewhere needs buffers for its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clarion.plan.ir import Node, Tensor, Weight
from clarion.residency import Mapped


def placement(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> tuple[tuple[Weight, ...], Mapped]:
    """The weights that the nodes read, each once and in this order, and where their bytes are."""
    weights = {weight.name: weight for node in nodes for weight in node.weights if weight is not None}
    return tuple(weights.values()), Mapped({name: tensors[name] for name in weights})
