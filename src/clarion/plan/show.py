"""A plan and a program as tables for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import assert_never

from clarion.plan import output, state, target
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.ir import Value
from clarion.plan.plan import Op, Plan
from clarion.plan.program import Program
from clarion.plan.state import PagedGroup, RecurrentGroup
from clarion.plan.weight import Weight

_ROWS = {"tokens": "T", "outputs": "O", "batch": "1"}
_PLAN_HEAD = ("#", "operation", "in", "out", "weights", "format")
_HEAD = ("#", "operation", "in", "out", "weights", "format", "MB/token", "fallback")


def show_plan(plan: Plan) -> str:
    """A header, one line for each operation, states and outputs. Shapes are as in `show_program`."""
    lines = [_PLAN_HEAD, *(_line(i, op, plan.values, plan.weights) for i, op in enumerate(plan.ops))]
    states = dict.fromkeys(map(state.describe, plan.states))
    counted = [f"{sum(state.describe(s) == text for s in plan.states)} × {text}" for text in states]
    n_bytes = sum(weight.n_bytes for weight in plan.weights)
    return "\n".join(
        [
            *_header(plan.hyperparameters),
            "",
            *_table(lines),
            "",
            f"{len(plan.ops)} operations; {len(plan.weights)} weights, {n_bytes / 1e6:.3f} MB",
            f"states: {'; '.join(counted) or 'none'}",
            f"outputs: {_outputs(plan)}",
        ]
    )


def show_program(program: Program) -> str:
    """A header, one line for each operation, and totals.

    Shapes stand as [T, width] for tokens, [O, ·] for wanted outputs, [2T, ·] and [2O, ·] where two experts
    have rows of their own, [1, ·] for the whole batch;
    MB/token are the weights that one token alone makes the machine read.
    """
    values = [buffer.value for buffer in program.buffers]
    moved = [program.weight_bytes(op) for op in program.ops]
    lines: list[tuple[str, ...]] = [_HEAD]
    for i, (op, n) in enumerate(zip(program.ops, moved, strict=True)):
        line = _line(i, op, values, program.weights)
        lines.append((*line, f"{n / 1e6:.3f}" if n else "", op.fallback))
    header = [
        *_header(program.hyperparameters),
        f"activations {_activations(program)}, cache {program.kv}, context {program.context}, "
        f"batch of {program.max_tokens} tokens and {program.max_outputs} outputs",
    ]
    return "\n".join([*header, "", *_table(lines), "", *_totals(program, sum(moved))])


def _activations(program: Program) -> str:
    """What was asked for, and what stands in its place for wanted rows."""
    kinds = {buffer.kind for buffer in program.buffers}
    also = program.activations == "fast" and "high" in kinds
    return "fast (high for wanted rows)" if also else program.activations


def _table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; the first line is the head."""
    head = lines[0]
    widths = [max(len(line[c]) for line in lines) for c in range(len(head))]
    right = {c for c, name in enumerate(head) if name in ("#", "MB/token")}
    return [
        "  ".join(
            cell.rjust(w) if c in right else cell.ljust(w)
            for c, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _header(hp: Hyperparameters) -> list[str]:
    experts = f", {hp.n_expert_used} of {hp.n_expert} experts" if hp.n_expert else ""
    window = f", window {hp.window}" if hp.window else ""
    return [
        f"{hp.architecture}: {hp.n_parameters / 1e6:.1f} M parameters, {hp.n_layer} layers, "
        f"width {hp.n_embd}, {hp.n_head} heads ({hp.n_head_kv} kv) of {hp.head_dim}, "
        f"feed-forward {hp.n_ff_expert or hp.n_ff}{experts}, vocabulary {hp.n_vocab}",
        f"positions: {hp.rope}, {hp.n_rot} of {hp.head_dim} rotated{window}; "
        f"made for {hp.context_length} tokens",
    ]


def _line(i: int, op: Op, values: Sequence[Value], weights: Sequence[Weight]) -> tuple[str, ...]:
    read = [weights[w] for w in op.weights if w >= 0]
    formats = dict.fromkeys(weight.format for weight in read)
    return (
        str(i),
        op.op,
        ", ".join(_shape(values[v]) for v in op.inputs),
        ", ".join(_shape(values[v]) for v in op.outputs),
        _names([weight.name for weight in read]),
        " ".join(formats),
    )


def _shape(value: Value) -> str:
    kind = "" if value.kind == "f32" else f"{value.kind} "
    slots = value.slots_per_token if value.slots_per_token > 1 else ""
    return f"{kind}[{slots}{_ROWS[value.rows]}, {value.width}]"


def _outputs(found: Plan | Program) -> str:
    return ", ".join(f"{o.value} ({output.describe(o)})" for o in found.outputs)


def _names(names: list[str]) -> str:
    """Weights' names, their block only once: `blk.0.attn_q attn_k attn_v`."""
    names = [name.removesuffix(".weight") for name in names]
    block = re.match(r"blk\.\d+\.", names[0]) if names else None
    return " ".join([*names[:1], *(name.removeprefix(block[0] if block else "") for name in names[1:])])


def _totals(program: Program, moved: int) -> list[str]:
    n, of = program.n_ops, program.n_plan_ops
    if program.fused:
        fusion = f"fusion removed {of - n} of {of} operations ({100 * (of - n) / of:.0f}%)"
    else:
        fusion = f"not fused: {n} operations for {of} of the plan"
    found = [op.fallback for op in program.ops if op.fallback]
    fallbacks = ", ".join(f"{found.count(name)} × {name}" for name in dict.fromkeys(found)) or "none"
    return [
        f"{n} operations; {fusion}; fallbacks: {fallbacks}",
        f"on {target.describe(program.place)}: weights {moved / 1e6:.3f} MB a token; "
        f"arena {program.arena_bytes / 1e6:.3f} MB; cache {_state_bytes(program)}",
    ]


def _state_bytes(program: Program) -> str:
    """What the states of a sequence take, by how they grow."""
    found = []
    for group in program.state_groups:
        match group:
            case PagedGroup(window=0):
                found.append(f"{group.position_bytes(program.kv)} bytes a token")
            case PagedGroup(window):
                found.append(f"{group.position_bytes(program.kv)} bytes for each of the last {window} tokens")
            case RecurrentGroup():
                found.append(f"{group.n_bytes} bytes a text")
            case _:
                assert_never(group)
    return " + ".join(found) or "0 bytes a token"
