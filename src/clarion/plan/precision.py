"""Pass: which encoding of its input each product reads.

Weights in F64, F32, F16 and BF16 multiply float32 activations; BF16 in a `fast` plan multiplies activations
rounded to BF16, where the native module has such products. All others multiply activations encoded as 8-bit
(`fast`) or 16-bit (`high`) integers, or float32 ones where the plan is `exact`. An input that feeds several
kinds exists several times.

A `fast` plan multiplies as a `high` one where only wanted rows are read: the output's matrix, and what
follows the last attention. No layer evens out what is rounded there, which is half of what 8 bits lose, and a
prompt has one such row. Whether these operations were moved behind the selection of their rows does not
matter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from clarion.plan.ir import Activations, Kind, Node, Value
from clarion.plan.narrow import before_selections
from clarion.plan.operations import OPERATIONS
from clarion.plan.weight import Weight


def input_kind(weight: Weight, activations: Activations, bf16: bool) -> Kind:
    """The encoding that a product over this weight reads."""
    if bf16 and weight.format == "BF16" and activations == "fast":
        return "bf16"
    return "f32" if weight.is_float or activations == "exact" else activations


def for_wanted_rows(nodes: Sequence[Node], kept: Collection[Value]) -> set[Node]:
    """The operations whose results are read for wanted rows only, whether others are computed or not.

    kept: the values of the outputs. What leads to none of them, as an observer's sums, reads nothing here.
    """
    read = set(kept)
    needed = []
    for node in reversed(nodes):
        if not node.outputs or not read.isdisjoint(node.outputs):  # without outputs it writes a state
            needed.append(node)
            read.update(node.inputs)
    needed.reverse()
    moved = {node for node in needed if node.outputs and all(out.rows == "outputs" for out in node.outputs)}
    return moved | before_selections(needed, kept)


def precision(
    nodes: Sequence[Node], activations: Activations, kept: Collection[Value] = (), *, bf16: bool = False
) -> list[Node]:
    """The same list with an `encode` before the first product that needs it.

    kept: the values of the plan's outputs.
    bf16: whether the native module multiplies BF16 with BF16.

    Names the fallback `float-product` where quantised weights are multiplied in float32.
    """
    wanted = for_wanted_rows(nodes, kept) if activations == "fast" else set()
    encoded: dict[tuple[Value, Kind], Value] = {}
    result = []
    for node in nodes:
        at = OPERATIONS[node.op].multiplied
        weight = node.weights[0] if at is not None else None
        if at is None or weight is None:
            result.append(node)
            continue
        x = node.inputs[at]
        kind = input_kind(weight, "high" if node in wanted else activations, bf16)
        if kind == "f32":
            result.append(node if weight.is_float else replace(node, fallback="float-product"))
            continue
        if (x, kind) not in encoded:
            encoded[x, kind] = replace(x, name=f"{x.name}.{kind}", kind=kind)
            result.append(Node("encode", (x,), (encoded[x, kind],)))
        result.append(replace(node, inputs=(*node.inputs[:at], encoded[x, kind], *node.inputs[at + 1 :])))
    return result
