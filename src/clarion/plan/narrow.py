"""Pass: after the last attention, compute only the rows whose outputs are wanted.

A model selects these rows before its output; most of what leads there treats each row alone, so the selection
can move up to the last operation that does not. For a prompt of which one row is wanted this saves nearly one
layer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from clarion.plan.ir import Node, Value, users
from clarion.plan.operations import OPERATIONS


def _selections(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    return [node for node in nodes if OPERATIONS[node.op].selects and node.outputs[0] not in kept]


def before_selections(nodes: Sequence[Node], kept: Collection[Value]) -> set[Node]:
    """The operations of which only selected rows are read, and which can be computed for these alone."""
    used_by = users(nodes, kept)
    selections = set(_selections(nodes, kept))
    narrowed: set[Node] = set()
    for node in reversed(nodes):
        readers = [reader for value in node.outputs for reader in used_by.get(value, [])]
        if (
            OPERATIONS[node.op].row_wise
            and readers
            and all(value.rows == "tokens" for value in node.outputs)
            and all(reader in selections or reader in narrowed for reader in readers)
        ):
            narrowed.add(node)
    return narrowed


def narrow(nodes: Sequence[Node], kept: Collection[Value] = ()) -> list[Node]:
    """The same outputs from fewer rows; `kept` are the values of the outputs."""
    narrowed = before_selections(nodes, kept)
    if not any(
        OPERATIONS[node.op].multiplies for node in narrowed
    ):  # sums alone are not worth the selections
        return list(nodes)

    few = {value: _few(value, kept) for node in narrowed for value in (*node.inputs, *node.outputs)}
    moved = [node for node in _selections(nodes, kept) if node.inputs[0] in few]
    few |= {node.outputs[0]: few[node.inputs[0]] for node in moved}
    result = []
    for node in nodes:
        if node in narrowed:
            inputs = tuple(few[value] for value in node.inputs)
            result.append(replace(node, inputs=inputs, outputs=tuple(few[value] for value in node.outputs)))
        elif node not in moved:
            inputs = tuple(
                few[value] if value.rows == "outputs" and value in few else value for value in node.inputs
            )
            result.append(node if inputs == node.inputs else replace(node, inputs=inputs))
            # At once, so that the sums further on find their operands in place.
            result += [Node("select", (value,), (few[value],)) for value in node.outputs if value in few]
    return result


def _few(value: Value, kept: Collection[Value]) -> Value:
    few = replace(value, name=f"{value.name}.select", rows="outputs")
    return replace(few, name=f"{few.name}.2") if few in kept else few
