"""Operations on positions: rotation, and attention to what sequences keep of theirs."""

from __future__ import annotations

from typing import Any

from clarion.plan.operation import Call, Input, Output, Reads, Tensor, Writes, operation
from clarion.plan.operations.common import Array, Batch, Floats, normalized, softmax
from clarion.plan.state import Latent, Paged

# What heads of keys and values ask of their state.
OF_HEADS = (("n_head", "n_head_kv"), ("dim_k", "head_dim"), ("dim_v", "dim_v"))


def _rotates_pairs(call: Call) -> None:
    n_rot, head_dim = call.sizes["n_rot"], call.sizes["head_dim"]
    if n_rot % 2 or not 0 < n_rot <= head_dim:
        call.fail(f"n_rot is {n_rot}, expected an even number up to head_dim, {head_dim}")


@operation(
    inputs=[Input("x", "n_head·head_dim", "T"), Input("r", "n_rot", "T")],
    outputs=[Output("y", "n_head·head_dim", "T", in_place="x")],
    weights=[Tensor("gain", ("head_dim",), optional=True)],
    check=_rotates_pairs,
)
def rope(
    xp: Any,
    x: Array,
    r: Array,
    gain: Array | None,
    *,
    n_head: int,
    head_dim: int,
    n_rot: int,
    neox: bool,
    eps: float,
) -> Array:
    """The first n_rot elements of each head rotated, after a norm of the head where there is a gain: pairs
    (i, i + n_rot/2) where `neox`, else (2i, 2i + 1). [Su et al., 2021, RoFormer]"""
    heads = x.reshape(len(x), n_head, head_dim)
    if gain is not None:
        heads = normalized(xp, heads, eps) * xp.asarray(gain)
    cos, sin = r[:, None, : n_rot // 2], r[:, None, n_rot // 2 :]
    turned, rest = heads[..., :n_rot], heads[..., n_rot:]
    if neox:
        a, b = turned[..., : n_rot // 2], turned[..., n_rot // 2 :]
        turned = xp.concatenate((a * cos - b * sin, a * sin + b * cos), -1)
    else:
        a, b = turned[..., ::2], turned[..., 1::2]
        turned = xp.stack((a * cos - b * sin, a * sin + b * cos), -1).reshape(turned.shape)
    return xp.concatenate((turned, rest), -1).reshape(x.shape)


@operation(
    inputs=[Input("k", "k_width", "T"), Input("v", "v_width", "T")],
    state=Writes(Paged, (("n_head·dim_k", "k_width"), ("n_head·dim_v", "v_width"))),
)
def kv_write(xp: Any, k: Array, v: Array, *, batch: Batch, state: int) -> None:
    """Puts k and v at the tokens' positions of the state."""
    batch.states[state].write(k, v)


@operation(
    inputs=[
        Input("q", "n_head·head_dim", "T"),
        Input("k", "n_head_kv·head_dim", "T"),
        Input("v", "n_head_kv·dim_v", "T"),
        Input("r", "n_rot", "T"),
    ],
    outputs=[Output("y", "n_head·head_dim", "T", in_place="q")],
    weights=[Tensor("q_gain", ("head_dim",), optional=True), Tensor("k_gain", ("head_dim",), optional=True)],
    state=Writes(Paged, OF_HEADS),
    check=_rotates_pairs,
)
def rope_kv(
    xp: Any, q: Array, k: Array, v: Array, r: Array, q_gain: Array | None, k_gain: Array | None, *,
    batch: Batch, state: int, n_head: int, n_head_kv: int, head_dim: int, dim_v: int, n_rot: int, neox: bool,
    eps: float,
) -> Array:  # fmt: skip
    """`rope` of q and of k; k and v go to the state."""
    rotate = rope.definition
    rotation = {"head_dim": head_dim, "n_rot": n_rot, "neox": neox, "eps": eps}
    batch.states[state].write(rotate(xp, k, r, k_gain, n_head=n_head_kv, **rotation), v)
    return rotate(xp, q, r, q_gain, n_head=n_head, **rotation)


def _groups_heads(call: Call) -> None:
    sizes = call.sizes
    if (
        min(sizes["n_head"], sizes["n_head_kv"]) < 1
        or sizes["n_head"] % sizes["n_head_kv"]
        or sizes["window"] < 0
    ):
        call.fail(f"n_head, n_head_kv or window out of range: {dict(call.parameters)}")
    if sizes["slopes"] not in (0, sizes["n_head"]):
        call.fail(f"{sizes['slopes']} slopes, expected none or one for each of {sizes['n_head']} heads")
    if sizes["chunked"] and not (sizes["window"] and sizes["causal"]):
        call.fail("chunked, expected a window and causal attention")


@operation(
    inputs=[Input("q", "n_head·head_dim", "T")],
    outputs=[Output("o", "n_head·dim_v", "T")],
    weights=[Tensor("sinks", ("n_head",), optional=True)],
    state=Reads(Paged, OF_HEADS),
    check=_groups_heads,
)
def attention(
    xp: Any,
    q: Array,
    sinks: Array | None,
    *,
    batch: Batch,
    state: int,
    n_head: int,
    n_head_kv: int,
    head_dim: int,
    dim_v: int,
    scale: float,
    cap: float,
    window: int,
    chunked: bool,
    causal: bool,
    slopes: Floats,
) -> Array:
    """softmax(scale · q kᵀ) v over positions of the token's own sequence: where `causal`, those up to the
    token's, p, and else all that are in the batch.

    Each group of n_head / n_head_kv heads shares a head of k and v. Of a window only positions less than
    `window` away count; where `chunked`, those from p // window · window on. Where `cap` is not 0, scores are
    cap · tanh(score / cap). A head's slope times the distance is taken from its scores [Press et al., 2022,
    ALiBi]. A head's sink is one more score, of a value that is zero [Xiao et al., 2024, attention sinks].
    """
    k, v, distance, own = batch.states[state].read()  # [P, n_head_kv, ·] twice, [T, P] twice
    hidden = ~own | (distance < 0) if causal else ~own
    if chunked:
        hidden = hidden | (distance > batch.positions[:, None] % window)
    elif window:
        hidden = hidden | (xp.abs(distance) >= window)
    heads = []
    for h in range(n_head):
        g = h // (n_head // n_head_kv)
        scores = q[:, h * head_dim : (h + 1) * head_dim] @ k[:, g].T * scale
        if cap:
            scores = cap * xp.tanh(scores / cap)
        if slopes:
            scores = scores - slopes[h] * xp.abs(distance)
        scores = xp.where(hidden, -xp.inf, scores)
        if sinks is not None:
            sink = xp.zeros((len(scores), 1), dtype=scores.dtype) + xp.asarray(sinks)[h]
            scores = xp.concatenate((scores, sink), -1)
        heads.append(softmax(xp, scores)[:, : len(v)] @ v[:, g])
    return xp.concatenate(heads, -1)


@operation(inputs=[Input("rows", "dim", "T")], state=Writes(Latent, (("dim", "dim"),)), module="latent")
def latent_write(xp: Any, rows: Array, *, batch: Batch, state: int) -> None:
    """Puts rows at the tokens' positions of the state."""
    batch.states[state].write(rows)


@operation(
    inputs=[Input("q", "n_head·dim", "T")],
    outputs=[Output("o", "n_head·dim_v", "T")],
    state=Reads(Latent, (("dim", "dim"), ("dim_v", "dim_v"))),
    module="latent",
)
def latent_attention(
    xp: Any, q: Array, *, batch: Batch, state: int, n_head: int, dim: int, dim_v: int, scale: float
) -> Array:
    """Causal attention of all heads to the same rows: a row is the key, and its first dim_v elements are the
    value. [DeepSeek-AI, 2024, DeepSeek-V2, section 2.1, with the projections absorbed]"""
    rows, distance, own = batch.states[state].read()  # [P, dim], [T, P] twice
    hidden = ~own | (distance < 0)
    heads = []
    for h in range(n_head):
        scores = q[:, h * dim : (h + 1) * dim] @ rows.T * scale
        heads.append(softmax(xp, xp.where(hidden, -xp.inf, scores)) @ rows[:, :dim_v])
    return xp.concatenate(heads, -1)
