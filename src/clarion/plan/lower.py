"""What the operation table has no entry for becomes part of a neighbour, on the way from a graph to its plan.

A bias belongs to its linear, the norm of heads to the rotation that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clarion.errors import PlanError
from clarion.plan.ir import Node, Value, producers, users


def lower(nodes: Sequence[Node], kept: Iterable[Value] = ()) -> list[Node]:
    """The same computation without `bias` and `head_norm`; `kept` are the values of the outputs.

    Raises:
        PlanError: one stands where it cannot be merged.
    """
    made_by, used_by = producers(nodes), users(nodes, kept)
    merged: dict[Node, Node | None] = {}
    for node in nodes:
        if node.op == "bias":
            linear = made_by[node.inputs[0]]
            if linear.op != "linear" or linear.weights[1:] != (None,) or len(used_by[node.inputs[0]]) > 1:
                raise PlanError(f"bias of {node.inputs[0].name} does not follow a linear of its own")
            merged[node] = replace(linear, outputs=node.outputs, weights=(linear.weights[0], node.weights[0]))
            merged[linear] = None
        elif node.op == "head_norm":
            followers = used_by.get(node.outputs[0], [])
            if len(followers) != 1 or followers[0].op != "rope":
                raise PlanError(f"head_norm of {node.inputs[0].name} is not followed by one rope alone")
            rope = followers[0]
            inputs: tuple[Value, ...] = (node.inputs[0], *rope.inputs[1:])
            merged[rope] = replace(rope, inputs=inputs, weights=node.weights, floats=node.floats)
            merged[node] = None
    lowered = (merged.get(node, node) for node in nodes)
    return [node for node in lowered if node is not None]
