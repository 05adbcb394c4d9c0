"""Pass: which encoding of its input each product reads.

Weights in F64, F32, F16 and BF16 multiply float32 activations; BF16 in a `fast` plan multiplies activations
rounded to BF16, where the native module has such products. All others multiply activations encoded as 8-bit
(`fast`) or 16-bit (`high`) integers, or float32 ones where the plan is `exact`. An input that feeds several
kinds exists several times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clarion.plan.ir import Activations, Kind, Node, Value
from clarion.plan.operations import OPERATIONS
from clarion.plan.weight import Weight


def input_kind(weight: Weight, activations: Activations, bf16: bool) -> Kind:
    """The encoding that a product over this weight reads."""
    if bf16 and weight.format == "BF16" and activations == "fast":
        return "bf16"
    return "f32" if weight.is_float or activations == "exact" else activations


def precision(nodes: Sequence[Node], activations: Activations, *, bf16: bool = False) -> list[Node]:
    """The same list with an `encode` before the first product that needs it.

    bf16: whether the native module multiplies BF16 with BF16.

    Names the fallback `float-product` where quantised weights are multiplied in float32.
    """
    encoded: dict[tuple[Value, Kind], Value] = {}
    result = []
    for node in nodes:
        at = OPERATIONS[node.op].multiplied
        weight = node.weights[0] if at is not None else None
        if at is None or weight is None:
            result.append(node)
            continue
        x = node.inputs[at]
        kind = input_kind(weight, activations, bf16)
        if kind == "f32":
            result.append(node if weight.is_float else replace(node, fallback="float-product"))
            continue
        if (x, kind) not in encoded:
            encoded[x, kind] = replace(x, name=f"{x.name}.{kind}", kind=kind)
            result.append(Node("encode", (x,), (encoded[x, kind],)))
        result.append(replace(node, inputs=(*node.inputs[:at], encoded[x, kind], *node.inputs[at + 1 :])))
    return result
