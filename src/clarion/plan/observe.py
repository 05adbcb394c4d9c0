"""Passes that look on: operations whose results nobody in the plan reads, kept for whoever runs it.

They come before precision and fusion, which see one more reader of a value and leave it whole. All rows are
then computed, also those of the last layer that lead to no wanted output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clarion.plan.ir import Node, Value
from clarion.plan.operations import OPERATIONS

Observer = Callable[[Sequence[Node]], tuple[list[Node], list[Value]]]


@dataclass(frozen=True, slots=True)
class Squares:
    """Where the sums over one input lie: `sums` [1, experts · width], `counts` [1, experts], both by name."""

    sums: str
    counts: str


@dataclass(slots=True)
class SquareSums:
    """Before each matrix whose name `wanted` accepts, sums the squares of its input, column by column.

    `found` is filled when a graph is compiled: by the weight's name. Matrices of one input share the sums.
    """

    wanted: Callable[[str], bool]
    found: dict[str, Squares] = field(default_factory=dict)

    def __call__(self, nodes: Sequence[Node]) -> tuple[list[Node], list[Value]]:
        result: list[Node] = []
        kept: list[Value] = []
        shared: dict[tuple[Value, ...], Squares] = {}
        for node in nodes:
            weight = node.weights[0] if OPERATIONS[node.op].multiplies else None
            if weight is not None and self.wanted(weight.name):
                if node.inputs not in shared:
                    x = node.inputs[0]
                    sums = Value(f"{weight.name}.in_sum2", weight.experts * x.width, "batch")
                    counts = Value(f"{weight.name}.counts", weight.experts, "batch")
                    result.append(
                        Node("square_sums", node.inputs, (sums, counts), ints={"experts": weight.experts})
                    )
                    kept += [sums, counts]
                    shared[node.inputs] = Squares(sums.name, counts.name)
                self.found[weight.name] = shared[node.inputs]
            result.append(node)
        return result, kept


@dataclass(slots=True)
class Layers:
    """Keeps the wanted rows [O, n_embd] of what leaves each layer: the sum that the next one begins with.

    `found` is filled when a graph is compiled: the buffers' names, in the order of the layers.
    """

    found: list[str] = field(default_factory=list)

    def __call__(self, nodes: Sequence[Node]) -> tuple[list[Node], list[Value]]:
        ends = _layer_ends(nodes)
        result: list[Node] = []
        kept: list[Value] = []
        for node in nodes:
            result.append(node)
            if node in ends:
                x = node.outputs[0]
                seen = replace(x, name=f"blk.{ends[node]}.out", rows="outputs")
                result.append(Node("select", (x,), (seen,)))
                kept.append(seen)
        self.found += [value.name for value in kept]
        return result, kept


def _layer_ends(nodes: Sequence[Node]) -> Mapping[Node, int]:
    """The last sum before the next layer reads its weights, with the number of the layer that it ends."""
    ends: dict[Node, int] = {}
    layer, last = None, None
    for node in nodes:
        reads = next(
            (n for weight in node.weights if weight and (n := _layer(weight.name)) is not None), layer
        )
        if layer is not None and last is not None and reads != layer:
            ends[last] = layer
        layer = reads
        if node.op == "add":
            last = node
    if layer is not None and last is not None:
        ends[last] = layer
    return ends


def _layer(name: str) -> int | None:
    """The number of the layer whose weight has this name."""
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else None
