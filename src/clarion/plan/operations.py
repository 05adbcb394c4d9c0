"""The operation table: every operation that a plan may hold, and what it means.

Each entry is a declaration (clarion/plan/operation.py explains its words) and a definition in a few lines of
an array module: with numpy in float64 it is what every machine is tested against, and the engine `exact`.
Operands are arrays [rows, width]; weights are arrays of their own shape; T, O and S are the batch's tokens,
wanted outputs and slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from clarion.plan.operation import (
    ANY_FLOAT,
    ENCODED,
    I32,
    Call,
    Input,
    Operation,
    Output,
    Reads,
    Tensor,
    Writes,
    operation,
)
from clarion.plan.state import Paged

# What heads of keys and values ask of their state.
OF_HEADS = (("n_head", "n_head_kv"), ("dim_k", "head_dim"), ("dim_v", "head_dim"))

Array = Any
Floats = tuple[float, ...]


class Batch(Protocol):
    """The tokens that a run computes, and the state that it continues.

    Attributes:
        tokens, positions: [T], ids and positions in their sequences.
        outputs: [O], the tokens whose rows are wanted.
        states: those of the plan, by number.
    """

    @property
    def tokens(self) -> Array: ...
    @property
    def positions(self) -> Array: ...
    @property
    def outputs(self) -> Array: ...
    @property
    def states(self) -> Sequence[Any]: ...


class PagedArrays(Protocol):
    """What `Batch.states` holds for a state of the kind `Paged`."""

    def write(self, k: Array, v: Array) -> None:
        """Puts keys and values [T, n_head·dim] at the tokens' positions."""

    def read(self) -> tuple[Array, Array, Array]:
        """Keys [P, n_head, dim_k] and values [P, n_head, dim_v] of P positions, and [T, P] by how many
        positions each lies before a token of its sequence: below zero where it lies after the token, or in
        another sequence."""


# ---- entries ----------------------------------------------------------------------------------------------


@operation(outputs=[Output("x", "n", "T")], weights=[Tensor("table", ("vocabulary", "n"), read="row")])
def embed(xp: Any, table: Array, *, batch: Batch, scale: float) -> Array:
    """The rows of the tokens' ids, times `scale`."""
    return table[batch.tokens] * scale


@operation(outputs=[Output("r", "2·inv_freq", "T")])
def rope_table(xp: Any, *, batch: Batch, inv_freq: Floats, magnitude: float) -> Array:
    """Cosines, then sines, of position · inv_freq, times `magnitude`."""
    angles = batch.positions[:, None] * xp.asarray(inv_freq)
    return xp.concatenate((xp.cos(angles), xp.sin(angles)), -1) * magnitude


@operation(
    inputs=[Input("x", "n")],
    outputs=[Output("y", "n", kinds=ANY_FLOAT), Output("encoded", "n", kinds=ENCODED, copy_of="y")],
    weights=[Tensor("gain", ("n",))],
)
def rms_norm(xp: Any, x: Array, gain: Array, *, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps) · gain, over rows. [Zhang & Sennrich, 2019, RMSNorm]"""
    return normalized(xp, x, eps) * xp.asarray(gain)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n", kinds=ENCODED)])
def encode(xp: Any, x: Array) -> Array:
    """x, ready to be multiplied: an encoding stands for the values that it was made of."""
    return x


@operation(
    inputs=[Input("a", "n", kinds=ANY_FLOAT), Input("residual", "m_i", optional=True)],
    outputs=[Output("y", "m_i", many=True, may_alias="residual")],
    weights=[Tensor("w", ("m_i", "n"), many=True), Tensor("b", ("m_i",), many=True, optional=True)],
    multiplies="a",
    adds="residual",
)
def linear(xp: Any, a: Array, residual: Array | None, w: list[Array], b: list[Array | None]) -> list[Array]:
    """a · wᵀ + b for each w; the residual is added last."""
    results = [a @ xp.asarray(matrix).T for matrix in w]
    results = [y if bias is None else y + xp.asarray(bias) for y, bias in zip(results, b, strict=True)]
    return results if residual is None else [results[0] + residual]


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
        Input("v", "n_head_kv·head_dim", "T"),
        Input("r", "n_rot", "T"),
    ],
    outputs=[Output("y", "n_head·head_dim", "T", in_place="q")],
    weights=[Tensor("q_gain", ("head_dim",), optional=True), Tensor("k_gain", ("head_dim",), optional=True)],
    state=Writes(Paged, OF_HEADS),
    check=_rotates_pairs,
)
def rope_kv(
    xp: Any, q: Array, k: Array, v: Array, r: Array, q_gain: Array | None, k_gain: Array | None, *,
    batch: Batch, state: int, n_head: int, n_head_kv: int, head_dim: int, n_rot: int, neox: bool, eps: float,
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


@operation(
    inputs=[Input("q", "n_head·head_dim", "T")],
    outputs=[Output("o", "n_head·head_dim", "T")],
    state=Reads(Paged, OF_HEADS),
    check=_groups_heads,
)
def attention(
    xp: Any,
    q: Array,
    *,
    batch: Batch,
    state: int,
    n_head: int,
    n_head_kv: int,
    head_dim: int,
    window: int,
    scale: float,
) -> Array:
    """softmax(scale · q kᵀ) v over the positions max(0, p - window + 1) .. p of the token's own sequence, all
    before it where window is 0. Each group of n_head / n_head_kv heads shares a head of k and v."""
    k, v, distance = batch.states[state].read()  # [P, n_head_kv, head_dim] twice, [T, P]
    hidden = (distance < 0) | (distance >= window) if window else distance < 0
    heads = []
    for h in range(n_head):
        g = h // (n_head // n_head_kv)
        scores = q[:, h * head_dim : (h + 1) * head_dim] @ k[:, g].T * scale
        heads.append(softmax(xp, xp.where(hidden, -xp.inf, scores)) @ v[:, g])
    return xp.concatenate(heads, -1)


@operation(inputs=[Input("x", "n")], outputs=[Output("y", "n")])
def silu(xp: Any, x: Array) -> Array:
    """x · sigmoid(x)."""
    return x * sigmoid(xp, x)


@operation(inputs=[Input("x", "n"), Input("y", "n")], outputs=[Output("z", "n", may_alias="x")])
def mul(xp: Any, x: Array, y: Array) -> Array:
    """x · y."""
    return x * y


@operation(inputs=[Input("x", "n"), Input("y", "n")], outputs=[Output("z", "n", may_alias="x")])
def add(xp: Any, x: Array, y: Array) -> Array:
    """x + y."""
    return x + y


@operation(inputs=[Input("g", "n"), Input("u", "n")], outputs=[Output("y", "n", kinds=ANY_FLOAT)])
def swiglu(xp: Any, g: Array, u: Array) -> Array:
    """silu(g) · u. [Shazeer, 2020, GLU Variants]"""
    return silu.definition(xp, g) * u


@operation(inputs=[Input("x", "n", "T")], outputs=[Output("y", "n", "O")])
def select(xp: Any, x: Array, *, batch: Batch) -> Array:
    """The rows of the tokens whose outputs are wanted."""
    return x[batch.outputs]


def _chooses_some(call: Call) -> None:
    k, n = call.sizes["k"], call.sizes["experts"]
    if not 0 < k <= n:
        call.fail(f"k is {k}, expected 1 to {n}, the number of experts")


@operation(
    inputs=[Input("scores", "experts", "B")],
    outputs=[Output("ids", "k", "B", I32), Output("w", "k", "B")],
    check=_chooses_some,
)
def route(xp: Any, scores: Array, *, k: int, normalize: bool) -> tuple[Array, Array]:
    """The k experts of the highest softmax(scores), of equal ones the first, and these probabilities, which
    sum to 1 where `normalize`."""
    p = softmax(xp, scores)
    ids = xp.argsort(-p, axis=-1, stable=True)[:, :k]
    w = p[xp.arange(len(p))[:, None], ids]
    return ids, w / w.sum(-1, keepdims=True) if normalize else w


@operation(
    inputs=[Input("a", "n", "B|S", ANY_FLOAT), Input("ids", "k", "B", I32)],
    outputs=[Output("y", "m_i", "S", many=True)],
    weights=[Tensor("w", ("experts", "m_i", "n"), read="chosen", many=True)],
    multiplies="a",
)
def expert_linear(xp: Any, a: Array, ids: Array, w: list[Array]) -> list[Array]:
    """a · w[e]ᵀ for each w and each expert e of the token; a has a row for the token, or for each slot."""
    slots = ids.reshape(-1)  # [S]
    a = a if len(a) == len(slots) else a[xp.arange(len(slots)) // ids.shape[1]]
    results = [xp.zeros((len(slots), matrices.shape[1]), dtype=a.dtype) for matrices in w]
    for expert in xp.unique(slots).tolist():
        chosen = slots == expert
        for y, matrices in zip(results, w, strict=True):
            y[chosen] = a[chosen] @ xp.asarray(matrices[expert]).T
    return results


@operation(
    inputs=[Input("y", "n", "S"), Input("w", "k", "B"), Input("residual", "n", "B", optional=True)],
    outputs=[Output("x", "n", "B")],
    adds="residual",
)
def expert_sum(xp: Any, y: Array, w: Array, residual: Array | None) -> Array:
    """The sum of each token's slots, weighted; the residual is added last."""
    x = (y.reshape(*w.shape, -1) * w[:, :, None]).sum(1)
    return x if residual is None else x + residual


def _of_experts(call: Call) -> None:
    x, n = call.inputs[0], call.sizes["experts"]
    if len(call.inputs) == 1 and n != 1:
        call.fail(f"experts is {n}, expected 1 without their ids")
    if len(call.inputs) > 1 and (x.rows != "tokens" or x.slots_per_token not in (1, call.sizes["k"])):
        call.fail(f"{x.name} has {x.slots_per_token} rows for each of {x.rows}, expected tokens and 1 or k")


@operation(
    inputs=[Input("x", "n"), Input("ids", "k", "T", I32, optional=True)],
    outputs=[Output("sums", "experts·n", "1"), Output("counts", "experts", "1")],
    check=_of_experts,
)
def square_sums(xp: Any, x: Array, ids: Array | None, *, experts: int) -> tuple[Array, Array]:
    """Sums of squares of columns over rows, and the number of rows: of all, or for each expert apart."""
    slots = xp.zeros((len(x), 1), dtype=int) if ids is None else ids
    chosen = (slots.reshape(-1, 1) == xp.arange(experts)).astype(x.dtype)  # [S, experts]
    x = x if len(x) == len(chosen) else x[xp.arange(len(chosen)) // slots.shape[1]]
    return (chosen.T @ (x * x)).reshape(1, -1), chosen.sum(0)[None]


# ---- functions that definitions share ---------------------------------------------------------------------


def normalized(xp: Any, x: Array, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps), over the last axis."""
    return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)


def softmax(xp: Any, x: Array) -> Array:
    """exp(x) / sum(exp(x)), over the last axis."""
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(xp: Any, x: Array) -> Array:
    """1 / (1 + exp(-x)), without a number beyond the range."""
    return xp.exp(xp.clip(x, None, 0)) / (1 + xp.exp(-xp.abs(x)))


OPERATIONS = {entry.name: entry for entry in list(globals().values()) if isinstance(entry, Operation)}
