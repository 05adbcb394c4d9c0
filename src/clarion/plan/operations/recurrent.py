"""Operations that go through a sequence token by token, and keep numbers of it that each token changes."""

from __future__ import annotations

from typing import Any

from clarion.plan.operation import Call, Input, Output, Tensor, Writes, operation
from clarion.plan.operations.common import Array, Batch
from clarion.plan.state import Recurrent


@operation(
    inputs=[Input("x", "n", "T")],
    outputs=[Output("y", "n", "T")],
    weights=[Tensor("w", ("n", "taps")), Tensor("b", ("n",), optional=True)],
    state=Writes(Recurrent, (("log", "n"),)),
    module="recurrent",
)
def causal_conv(
    xp: Any, x: Array, w: Array, b: Array | None, *, batch: Batch, state: int, taps: int, silu: bool
) -> Array:
    """The sum over the last `taps` tokens, each column apart: Σ w[:, i] · x[t - taps + 1 + i] + b, then
    y · sigmoid(y) where `silu`. Before the first token are zeros. The state holds the last taps - 1 rows."""
    w = xp.asarray(w)

    def step(last: Array, t: int) -> tuple[Array, Array]:
        rows = xp.concatenate((last, x[t : t + 1]))  # [taps, n]
        return rows[1:], (rows * w.T).sum(0)

    y = batch.states[state].scan(xp, len(x), xp.zeros((taps - 1, x.shape[1]), dtype=x.dtype), step)
    y = y if b is None else y + xp.asarray(b)
    return y / (1 + xp.exp(-y)) if silu else y


def _decays(call: Call) -> None:
    sizes = call.sizes
    if sizes["decays"] not in (sizes["n_head"], sizes["n_head"] * sizes["dim_k"]):
        call.fail(f"{sizes['decays']} decays, expected one for each head, or for each of its columns")
    if sizes["n_head_k"] < 1 or sizes["n_head"] % sizes["n_head_k"]:
        call.fail(f"{sizes['n_head']} heads share {sizes['n_head_k']}, expected a divisor")


@operation(
    inputs=[
        Input("q", "n_head_k·dim_k", "T"),
        Input("k", "n_head_k·dim_k", "T"),
        Input("v", "n_head·dim_v", "T"),
        Input("decay", "decays", "T"),
        Input("beta", "n_head", "T"),
    ],
    outputs=[Output("o", "n_head·dim_v", "T")],
    state=Writes(Recurrent, (("size", "n_head·dim_k·dim_v"),)),
    check=_decays,
    module="recurrent",
)
def delta_rule(
    xp: Any, q: Array, k: Array, v: Array, decay: Array, beta: Array, *,
    batch: Batch, state: int, n_head: int, n_head_k: int, dim_k: int, dim_v: int, tiled: bool, scale: float,
) -> Array:  # fmt: skip
    """The gated delta rule: S ← diag(exp(decay)) S;  S ← S + beta · k (v - Sᵀk)ᵀ;  o = scale · Sᵀq, where S
    is a matrix [dim_k, dim_v] of each head, zero at first. [Yang et al., 2025, Gated Delta Networks; with a
    decay per column: Kimi Team, 2025, Kimi Linear]

    Heads h of q and k serve heads h · n_head / n_head_k and those that follow, or h, h + n_head_k, .. where
    `tiled`. `decay` is one for each head or for each of its dim_k columns.
    """
    groups = xp.arange(n_head) % n_head_k if tiled else xp.arange(n_head) // (n_head // n_head_k)
    q, k = (x.reshape(len(x), n_head_k, dim_k)[:, groups] for x in (q, k))  # [T, n_head, dim_k]
    v = v.reshape(len(v), n_head, dim_v)
    factor = xp.exp(decay).reshape(len(v), n_head, -1)  # [T, n_head, 1 or dim_k]

    def step(s: Array, t: int) -> tuple[Array, Array]:
        s = s * factor[t][:, :, None]
        change = beta[t][:, None] * (v[t] - xp.einsum("hkv,hk->hv", s, k[t]))
        s = s + k[t][:, :, None] * change[:, None, :]
        return s, xp.einsum("hkv,hk->hv", s, q[t]) * scale

    zero = xp.zeros((n_head, dim_k, dim_v), dtype=v.dtype)
    return batch.states[state].scan(xp, len(v), zero, step).reshape(len(v), -1)


@operation(
    inputs=[
        Input("x", "n", "T"),
        Input("dt", "n", "T"),
        Input("b", "d_state", "T"),
        Input("c", "d_state", "T"),
    ],
    outputs=[Output("y", "n", "T")],
    weights=[Tensor("a", ("n", "d_state")), Tensor("d", ("n",))],
    state=Writes(Recurrent, (("size", "n·d_state"),)),
    module="recurrent",
)
def selective_scan(
    xp: Any, x: Array, dt: Array, b: Array, c: Array, a: Array, d: Array, *, batch: Batch, state: int
) -> Array:
    """h ← exp(dt · a) · h + dt · x · b;  y = h c + d · x, where h is a row [d_state] of each column.
    [Gu & Dao, 2023, Mamba]"""
    a, d = xp.asarray(a), xp.asarray(d)

    def step(h: Array, t: int) -> tuple[Array, Array]:
        h = h * xp.exp(dt[t][:, None] * a) + (dt[t] * x[t])[:, None] * b[t]
        return h, h @ c[t] + d * x[t]

    return batch.states[state].scan(xp, len(x), xp.zeros(a.shape, dtype=x.dtype), step)


def _shares_groups(call: Call) -> None:
    if call.sizes["n_group"] < 1 or call.sizes["n_head"] % call.sizes["n_group"]:
        call.fail(f"{call.sizes['n_head']} heads share {call.sizes['n_group']} groups, expected a divisor")


@operation(
    inputs=[
        Input("x", "n_head·head_dim", "T"),
        Input("dt", "n_head", "T"),
        Input("b", "n_group·d_state", "T"),
        Input("c", "n_group·d_state", "T"),
    ],
    outputs=[Output("y", "n_head·head_dim", "T")],
    weights=[Tensor("a", ("n_head",)), Tensor("d", ("n_head",))],
    state=Writes(Recurrent, (("size", "n_head·head_dim·d_state"),)),
    check=_shares_groups,
    module="recurrent",
)
def state_space_scan(
    xp: Any, x: Array, dt: Array, b: Array, c: Array, a: Array, d: Array, *,
    batch: Batch, state: int, n_head: int, head_dim: int, n_group: int, d_state: int,
) -> Array:  # fmt: skip
    """h ← exp(dt · a) · h + dt · x bᵀ;  y = h c + d · x, where h is a matrix [head_dim, d_state] of each
    head; groups of heads share b and c. [Dao & Gu, 2024, Mamba-2]"""
    a, d = xp.asarray(a), xp.asarray(d)
    x = x.reshape(len(x), n_head, head_dim)
    group = xp.arange(n_head) // (n_head // n_group)
    b, c = (y.reshape(len(y), n_group, d_state)[:, group] for y in (b, c))  # [T, n_head, d_state]

    def step(h: Array, t: int) -> tuple[Array, Array]:
        h = h * xp.exp(dt[t] * a)[:, None, None]
        h = h + (dt[t][:, None] * x[t])[:, :, None] * b[t][:, None, :]
        return h, xp.einsum("hxs,hs->hx", h, c[t]) + d[:, None] * x[t]

    zero = xp.zeros((n_head, head_dim, d_state), dtype=x.dtype)
    return batch.states[state].scan(xp, len(x), zero, step).reshape(len(x), -1)
