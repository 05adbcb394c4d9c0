"""What a plan costs: the bytes and the products that speeds are held against."""

from __future__ import annotations

from clarion.plan import Plan

# Products of bytes that one product takes: 16-bit activations are two bytes wide. What multiplies in float
# has no byte products.
BYTE_PRODUCTS = {"fast": 1, "high": 2}


def bytes_per_token(plan: Plan) -> int:
    """Bytes of weights that one token alone reads: the floor of what generation moves."""
    return sum(plan.weight_bytes(op) for op in plan.ops)


def byte_products_per_token(plan: Plan) -> int:
    """Products of bytes that a prompt's token takes, its logits left out."""
    total = 0
    for op in plan.ops:
        if op.op not in ("linear", "expert_linear") or plan.buffers[op.outputs[0]].rows == "outputs":
            continue
        times = BYTE_PRODUCTS.get(plan.buffers[op.inputs[0]].kind, 0)
        if op.op == "expert_linear":
            times *= plan.buffers[op.outputs[0]].slots_per_token
        weights = [plan.weights[i] for i in op.weights if i >= 0]
        total += times * sum(weight.rows * weight.cols for weight in weights if weight.rows > 1)
    return total
