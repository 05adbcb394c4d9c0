"""What a program costs: the bytes and the products that speeds are held against."""

from __future__ import annotations

from clarion.plan import Program
from clarion.plan.operations import OPERATIONS

# Products of bytes that one product takes: 16-bit activations are two bytes wide. What multiplies in float
# has no byte products.
BYTE_PRODUCTS = {"fast": 1, "high": 2}


def bytes_per_token(program: Program) -> int:
    """Bytes of weights that one token alone reads: the floor of what generation moves."""
    return sum(program.weight_bytes(op) for op in program.ops)


def byte_products_per_token(program: Program) -> int:
    """Products of bytes that a prompt's token takes, its logits left out."""
    total = 0
    for op in program.ops:
        multiplied = OPERATIONS[op.op].multiplied
        if multiplied is None or program.buffers[op.outputs[0]].rows == "outputs":
            continue
        times = BYTE_PRODUCTS.get(program.buffers[op.inputs[multiplied]].kind, 0)
        for weight, n, of in program.weights_read(op):
            if weight.rows > 1:
                total += times * (weight.experts * weight.rows * weight.cols // of * n)
    return total
