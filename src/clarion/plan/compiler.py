"""From plan to program: the passes, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from clarion.errors import ParameterError
from clarion.plan.cache import CacheFormats
from clarion.plan.fuse import fuse as fuse_nodes
from clarion.plan.ir import Activations, Node, Value
from clarion.plan.memory import memory
from clarion.plan.narrow import narrow
from clarion.plan.observe import Observer
from clarion.plan.operation import Reads
from clarion.plan.operations import OPERATIONS
from clarion.plan.plan import Op, Plan, weights_of
from clarion.plan.precision import precision
from clarion.plan.program import Program
from clarion.plan.state import Paged, State
from clarion.plan.target import Target
from clarion.plan.verify import verify


def compile(
    plan: Plan,
    target: Target,
    *,
    activations: Activations = "high",
    kv: str | Sequence[str] | None = None,
    max_tokens: int,
    max_outputs: int,
    context: int,
    fuse: bool = True,
    observe: Observer | None = None,
) -> Program:
    """Compiles a plan into a verified program.

    Args:
        target: where the program is to run.
        activations: what quantised weights are multiplied with: 8-bit (`fast`) or 16-bit (`high`) integers,
            or float32 (`exact`). Where only wanted rows are read, `fast` is `high`.
        kv: formats of keys and values (`CacheFormats.parse`); None: f32 where `exact`, else f16.
        max_tokens: tokens in the largest batch.
        max_outputs: outputs wanted of one batch at most, up to max_tokens.
        context: positions of the longest sequence.
        fuse: False leaves operations apart; the results are the same.
        observe: adds operations whose results are kept for whoever runs the program; see
            `clarion.plan.observe`.

    Raises:
        ParameterError: an argument out of range, or `exact` with keys and values that are not f32.
        PlanError: the program breaks a rule.
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
    nodes, kept = plan.nodes(), plan.kept()
    observed: list[Value] = []
    if observe is not None:  # all rows are wanted
        nodes, observed = observe(nodes)
    elif fuse:
        nodes = narrow(nodes, kept)
    nodes = precision(nodes, activations, kept, bf16=target.bf16)
    kept += observed
    if fuse:
        nodes = fuse_nodes(nodes, kept)

    def max_rows(value: Value) -> int:
        most = {"tokens": max_tokens, "outputs": max_outputs, "batch": 1}
        return most[value.rows] * value.slots_per_token

    weights = weights_of(nodes)
    numbers = {weight.name: i for i, weight in enumerate(weights)}
    buffers, index, arena_bytes = memory(nodes, kept, max_rows, target.row_bytes)
    program = Program(
        hyperparameters=plan.hyperparameters,
        place=target.place,
        activations=activations,
        kv=formats,
        context=context,
        max_tokens=max_tokens,
        max_outputs=max_outputs,
        fused=fuse,
        n_plan_ops=len(plan.ops),
        states=plan.states,
        arena_bytes=arena_bytes,
        buffers=buffers,
        weights=weights,
        ops=tuple(Op.of(_named_fallback(node, plan.states, context), index, numbers) for node in nodes),
        outputs=plan.outputs,
        observed=tuple(value.name for value in observed),
    )
    verify(program)
    return program


def _named_fallback(node: Node, states: Sequence[State], context: int) -> Node:
    """`full-cache` where a state keeps all positions, also those that a window has left behind."""
    if not isinstance(OPERATIONS[node.op].state, Reads) or not 0 < node.ints.get("window", 0) < context:
        return node
    state = states[node.ints["state"]]
    spare = isinstance(state, Paged) and not state.window and node.ints["causal"]
    return replace(node, fallback="full-cache") if spare else node
