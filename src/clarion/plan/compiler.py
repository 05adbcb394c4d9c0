"""From graph to plan: the passes, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from clarion.errors import ParameterError, PlanError
from clarion.plan.cache import CacheFormats
from clarion.plan.fuse import fuse as fuse_nodes
from clarion.plan.graph import Graph
from clarion.plan.ir import Activations, Node, Value, Weight
from clarion.plan.lower import lower
from clarion.plan.memory import memory
from clarion.plan.narrow import narrow
from clarion.plan.observe import Observer
from clarion.plan.operation import Reads
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import Op, Plan
from clarion.plan.precision import precision
from clarion.plan.verify import verify


def compile(
    graph: Graph,
    *,
    activations: Activations = "high",
    kv: str | Sequence[str] | None = None,
    max_tokens: int,
    max_outputs: int,
    context: int,
    fuse: bool = True,
    bf16: bool = False,
    observe: Observer | None = None,
    row_bytes: Callable[[str, int], int] | None = None,
) -> Plan:
    """Compiles a graph into a verified plan.

    Args:
        activations: what quantised weights are multiplied with: 8-bit (`fast`) or 16-bit (`high`) integers,
            or float32 (`exact`).
        kv: formats of the cache (`CacheFormats.parse`); None: f32 where `exact`, else f16.
        max_tokens: tokens in the largest batch.
        max_outputs: logits wanted of one batch at most, up to max_tokens.
        context: positions of the longest sequence.
        fuse: False leaves operations apart; the results are the same.
        bf16: whether the native module multiplies BF16 with BF16, which a `fast` plan then uses.
        observe: adds operations whose results are kept for whoever runs the plan; see `clarion.plan.observe`.
        row_bytes: bytes of a buffer's row by kind and width; None asks the native module.

    Raises:
        ParameterError: an argument out of range, or `exact` with a cache that is not f32.
        PlanError: the graph has no output, or the plan breaks a rule.
    """
    if activations not in get_args(Activations):
        raise ParameterError(
            f"activations is {activations!r}, expected one of {', '.join(get_args(Activations))}"
        )
    formats = CacheFormats.parse(("f32" if activations == "exact" else "f16") if kv is None else kv)
    if activations == "exact" and str(formats) != "f32":
        raise ParameterError(f"kv is {str(formats)!r}, expected 'f32' where activations are exact")
    for name, value in (("max_tokens", max_tokens), ("max_outputs", max_outputs), ("context", context)):
        if value < 1:
            raise ParameterError(f"{name} is {value}, expected at least 1")
    if max_outputs > max_tokens:
        raise ParameterError(f"max_outputs is {max_outputs}, expected at most max_tokens, {max_tokens}")
    if graph.logits is None:
        raise PlanError("the graph has no output")
    if row_bytes is None:
        from clarion.host import native

        row_bytes = native().encoded_row_bytes

    nodes = lower(graph.nodes)
    kept = [graph.logits]
    if observe is not None:  # all rows are wanted
        nodes, observed = observe(nodes)
        kept += observed
    elif fuse:
        nodes = narrow(nodes)
    nodes = precision(nodes, activations, bf16=bf16)
    if fuse:
        nodes = fuse_nodes(nodes)
    read = (weight for node in nodes for weight in node.weights if weight is not None)
    weights = tuple({weight.name: weight for weight in read}.values())

    def max_rows(value: Value) -> int:
        most = {"tokens": max_tokens, "outputs": max_outputs, "batch": 1}
        return most[value.rows] * value.slots_per_token

    weight_index = {weight: i for i, weight in enumerate(weights)}
    buffers, index, arena_bytes = memory(nodes, kept, max_rows, row_bytes)
    plan = Plan(
        hyperparameters=graph.hyperparameters,
        activations=activations,
        kv=formats,
        context=context,
        max_tokens=max_tokens,
        max_outputs=max_outputs,
        fused=fuse,
        n_graph_ops=len(graph.nodes),
        kv_layers=tuple(graph.kv_layers),
        arena_bytes=arena_bytes,
        buffers=buffers,
        weights=weights,
        ops=tuple(_op(node, index, weight_index, context) for node in nodes),
        kept=tuple(value.name for value in kept),
    )
    verify(plan)
    return plan


def _op(node: Node, buffers: dict[Value, int], weights: dict[Weight, int], context: int) -> Op:
    # The cache keeps all positions, also those that a window has left behind.
    spare = isinstance(OPERATIONS[node.op].state, Reads) and 0 < node.ints["window"] < context
    return Op(
        node.op,
        tuple(buffers[value] for value in node.inputs),
        tuple(buffers[value] for value in node.outputs),
        tuple(-1 if weight is None else weights[weight] for weight in node.weights),
        node.ints,
        node.floats,
        node.arrays,
        "full-cache" if spare else node.fallback,
    )
