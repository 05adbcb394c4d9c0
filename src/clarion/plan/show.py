"""The plan as a table for people."""

from __future__ import annotations

import re

from clarion.plan.plan import Buffer, Op, Plan

_ROWS = {"tokens": "T", "outputs": "O", "batch": "1"}
_HEAD = ("#", "operation", "in", "out", "weights", "format", "MB/token", "fallback")


def show(plan: Plan) -> str:
    """A header, one line for each operation, and totals.

    Shapes stand as [T, width] for tokens, [O, ·] for wanted outputs, [2T, ·] and [2O, ·] where two experts
    have rows of their own, [1, ·] for the whole batch;
    MB/token are the weights that one token alone makes the machine read.
    """
    moved = [plan.weight_bytes(op) for op in plan.ops]
    lines = [_HEAD, *(_line(plan, i, op, n) for i, (op, n) in enumerate(zip(plan.ops, moved, strict=True)))]
    widths = [max(len(line[c]) for line in lines) for c in range(len(_HEAD))]
    right = {0, _HEAD.index("MB/token")}
    table = [
        "  ".join(
            cell.rjust(w) if c in right else cell.ljust(w)
            for c, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*_header(plan), "", *table, "", *_totals(plan, sum(moved))])


def _header(plan: Plan) -> list[str]:
    hp = plan.hyperparameters
    experts = f", {hp.n_expert_used} of {hp.n_expert} experts" if hp.n_expert else ""
    window = f", window {hp.window}" if hp.window else ""
    return [
        f"{hp.architecture}: {hp.n_parameters / 1e6:.1f} M parameters, {hp.n_layer} layers, "
        f"width {hp.n_embd}, {hp.n_head} heads ({hp.n_head_kv} kv) of {hp.head_dim}, "
        f"feed-forward {hp.n_ff}{experts}, vocabulary {hp.n_vocab}",
        f"positions: {hp.rope}, {hp.n_rot} of {hp.head_dim} rotated{window}; "
        f"made for {hp.context_length} tokens",
        f"activations {plan.activations}, cache {plan.kv}, context {plan.context}, "
        f"batch of {plan.max_tokens} tokens and {plan.max_outputs} outputs",
    ]


def _line(plan: Plan, i: int, op: Op, moved: int) -> tuple[str, ...]:
    weights = [plan.weights[w] for w in op.weights if w >= 0]
    formats = dict.fromkeys(weight.format for weight in weights)
    return (
        str(i),
        op.op,
        ", ".join(_shape(plan.buffers[b]) for b in op.inputs),
        ", ".join(_shape(plan.buffers[b]) for b in op.outputs),
        _names([weight.name for weight in weights]),
        " ".join(formats),
        f"{moved / 1e6:.3f}" if moved else "",
        op.fallback,
    )


def _shape(buffer: Buffer) -> str:
    kind = "" if buffer.kind == "f32" else f"{buffer.kind} "
    slots = buffer.slots_per_token if buffer.slots_per_token > 1 else ""
    return f"{kind}[{slots}{_ROWS[buffer.rows]}, {buffer.width}]"


def _names(names: list[str]) -> str:
    """Weights' names, their block only once: `blk.0.attn_q attn_k attn_v`."""
    names = [name.removesuffix(".weight") for name in names]
    block = re.match(r"blk\.\d+\.", names[0]) if names else None
    return " ".join([*names[:1], *(name.removeprefix(block[0] if block else "") for name in names[1:])])


def _totals(plan: Plan, moved: int) -> list[str]:
    n, graph = plan.n_ops, plan.n_graph_ops
    if plan.fused:
        fusion = f"fusion removed {graph - n} of {graph} operations ({100 * (graph - n) / graph:.0f}%)"
    else:
        fusion = f"not fused: {n} operations for {graph} of the graph"
    found = [op.fallback for op in plan.ops if op.fallback]
    fallbacks = ", ".join(f"{found.count(name)} × {name}" for name in dict.fromkeys(found)) or "none"
    return [
        f"{n} operations; {fusion}; fallbacks: {fallbacks}",
        f"weights {moved / 1e6:.3f} MB a token; "
        f"arena {plan.arena_bytes / 1e6:.3f} MB; cache {plan.kv_bytes_per_token} bytes a token",
    ]
