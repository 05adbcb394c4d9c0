"""Products with matrices: of all rows with one, and of each slot with that of its expert or head."""

from __future__ import annotations

from typing import Any

from clarion.plan.operation import ANY_FLOAT, I32, Call, Input, Output, Tensor, operation
from clarion.plan.operations.common import Array, log_of_one_and_exp, sigmoid, softmax


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


def _chooses_some(call: Call) -> None:
    sizes = call.sizes
    k, n, groups, used = (sizes[name] for name in ("k", "experts", "n_group", "n_group_used"))
    if not 0 < k <= n:
        call.fail(f"k is {k}, expected 1 to {n}, the number of experts")
    if groups < 1 or n % groups or not 0 < used <= groups or k > n // groups * used:
        call.fail(
            f"{used} of {groups} groups of {n} experts, expected equal groups with at least {k} experts"
        )
    if not 1 <= sizes["group_top"] <= n // groups:
        call.fail(f"group_top is {sizes['group_top']}, expected 1 to {n // groups}")
    if not 0 <= sizes["gating"] < 4:
        call.fail(f"gating is {sizes['gating']}, expected 0 to 3")


SOFTMAX, SIGMOID, SQRT_SOFTPLUS, SOFTMAX_OF_CHOSEN = range(4)


@operation(
    inputs=[Input("scores", "experts", "B")],
    outputs=[Output("ids", "k", "B", I32), Output("w", "k", "B")],
    weights=[Tensor("bias", ("experts",), optional=True)],
    check=_chooses_some,
)
def route(
    xp: Any,
    scores: Array,
    bias: Array | None,
    *,
    k: int,
    gating: int,
    n_group: int,
    n_group_used: int,
    group_top: int,
    normalize: bool,
    scale: float,
) -> tuple[Array, Array]:
    """The k experts that a token uses, highest first and of equal ones the first, and their weights.

    A weight is p(score): the softmax over all experts (gating 0), sigmoid (1), √softplus (2), or the softmax
    over the chosen ones (3, where experts are chosen by the score itself). Chosen are the highest p + bias,
    of the n_group_used groups whose group_top highest have the highest sum. The weights are divided by their
    sum where `normalize`, then multiplied by `scale`.
    """
    p = scores
    if gating == SOFTMAX:
        p = softmax(xp, scores)
    elif gating == SIGMOID:
        p = sigmoid(xp, scores)
    elif gating == SQRT_SOFTPLUS:
        p = xp.sqrt(log_of_one_and_exp(xp, scores))
    rows = xp.arange(len(p))[:, None]
    wanted = p if bias is None else p + xp.asarray(bias)
    if n_group_used < n_group:
        grouped = wanted.reshape(len(p), n_group, -1)
        sums = xp.sort(grouped, axis=-1)[..., -group_top:].sum(-1)  # [B, n_group]
        used = xp.argsort(-sums, axis=-1, stable=True)[:, :n_group_used]
        allowed = xp.zeros(sums.shape, dtype=bool)
        allowed[rows, used] = True
        wanted = xp.where(allowed[..., None], grouped, -xp.inf).reshape(p.shape)
    ids = xp.argsort(-wanted, axis=-1, stable=True)[:, :k]
    w = p[rows, ids]
    if gating == SOFTMAX_OF_CHOSEN:
        w = softmax(xp, w)
    return ids, (w / w.sum(-1, keepdims=True) if normalize else w) * scale


@operation(
    inputs=[Input("ids", "k", "B", I32)],
    outputs=[Output("y", "k", "B")],
    weights=[Tensor("v", ("experts",))],
    module="operations",
)
def chosen(xp: Any, ids: Array, v: Array) -> Array:
    """The numbers of the experts that each token uses."""
    return xp.asarray(v)[ids]


@operation(
    inputs=[Input("a", "n", "B|S", ANY_FLOAT), Input("ids", "k", "B", I32)],
    outputs=[Output("y", "m_i", "S", many=True)],
    weights=[
        Tensor("w", ("experts", "m_i", "n"), read="chosen", many=True),
        Tensor("b", ("experts", "m_i"), read="chosen", many=True, optional=True),
    ],
    multiplies="a",
)
def expert_linear(xp: Any, a: Array, ids: Array, w: list[Array], b: list[Array | None]) -> list[Array]:
    """a · w[e]ᵀ + b[e] for each w and each expert e of the token; a has a row for the token, or for each
    slot."""
    slots = ids.reshape(-1)  # [S]
    a = a if len(a) == len(slots) else a[xp.arange(len(slots)) // ids.shape[1]]
    results = [xp.zeros((len(slots), matrices.shape[1]), dtype=a.dtype) for matrices in w]
    for expert in xp.unique(slots).tolist():
        chosen = slots == expert
        for y, matrices, biases in zip(results, w, b, strict=True):
            y[chosen] = a[chosen] @ xp.asarray(matrices[expert]).T
            if biases is not None:
                y[chosen] += xp.asarray(biases[expert])
    return results


@operation(
    inputs=[Input("x", "n", "B|S"), Input("w", "k", "B")],
    outputs=[Output("y", "n", "S")],
    module="operations",
)
def mul_slots(xp: Any, x: Array, w: Array) -> Array:
    """A row for each slot: its own of x, or the token's, times the slot's weight."""
    rows = x.reshape(len(w), -1, x.shape[1])  # [B, 1 or k, n]
    return (rows * w[:, :, None]).reshape(-1, x.shape[1])


@operation(
    inputs=[Input("y", "n", "S"), Input("w", "k", "B"), Input("residual", "n", "B", optional=True)],
    outputs=[Output("x", "n", "B")],
    adds="residual",
)
def expert_sum(xp: Any, y: Array, w: Array, residual: Array | None) -> Array:
    """The sum of each token's slots, weighted; the residual is added last."""
    x = (y.reshape(*w.shape, -1) * w[:, :, None]).sum(1)
    return x if residual is None else x + residual


@operation(
    inputs=[Input("x", "k·n", "B")],
    outputs=[Output("y", "n", "S"), Output("ids", "k", "B", I32)],
    module="operations",
)
def heads_to_slots(xp: Any, x: Array, *, k: int, n: int) -> tuple[Array, Array]:
    """Each of k heads of n elements as a row of its own, and its number: so that `expert_linear` multiplies
    each head with a matrix of its own."""
    return x.reshape(-1, n), xp.zeros((len(x), k), dtype=int) + xp.arange(k)


@operation(
    inputs=[Input("ids", "k", "B", I32), Input("y", "n", "S")],
    outputs=[Output("x", "k·n", "B")],
    module="operations",
)
def slots_to_heads(xp: Any, ids: Array, y: Array, *, k: int) -> Array:
    """The rows of a token's k slots, one behind the other."""
    return y.reshape(len(ids), -1)


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
    module="operations",
)
def square_sums(xp: Any, x: Array, ids: Array | None, *, experts: int) -> tuple[Array, Array]:
    """Sums of squares of columns over rows, and the number of rows: of all, or for each expert apart."""
    slots = xp.zeros((len(x), 1), dtype=int) if ids is None else ids
    chosen = (slots.reshape(-1, 1) == xp.arange(experts)).astype(x.dtype)  # [S, experts]
    x = x if len(x) == len(chosen) else x[xp.arange(len(chosen)) // slots.shape[1]]
    return (chosen.T @ (x * x)).reshape(1, -1), chosen.sum(0)[None]
