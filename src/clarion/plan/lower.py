"""What becomes part of a neighbour on the way from a graph to its plan.

A bias, for which the operation table has no entry, belongs to its linear. The norm of heads belongs to the
rotation that follows, where one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clarion.errors import PlanError
from clarion.plan.ir import Node, Value, producers, users


def lower(nodes: Sequence[Node], kept: Iterable[Value] = ()) -> list[Node]:
    """The same computation without `bias`; `kept` are the values of the outputs.

    Raises:
        PlanError: a bias stands where it cannot be merged.
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
            gain, followers = node.weights[0], used_by.get(node.outputs[0], [])
            rotated = (
                len(followers) == 1
                and followers[0].op == "rope"
                and followers[0].inputs[0] is node.outputs[0]
            )
            if (
                not rotated
                or gain is None
                or gain.cols != node.ints["head_dim"]
                or node.floats["scale"] != 1.0
            ):
                continue
            rope = followers[0]
            inputs: tuple[Value, ...] = (node.inputs[0], *rope.inputs[1:])
            merged[rope] = replace(
                rope, inputs=inputs, weights=node.weights, floats={"eps": node.floats["eps"]}
            )
            merged[node] = None
    lowered = (merged.get(node, node) for node in nodes)
    return [node for node in lowered if node is not None]
