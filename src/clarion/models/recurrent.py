"""Blocks that keep a fixed number of values of a sequence, instead of keys and values of each position: gated
delta nets, and Mamba's two kinds of scan."""

from __future__ import annotations

from dataclasses import dataclass

from clarion.errors import ModelError
from clarion.models.blocks import Layer, silu_gate
from clarion.models.keys import Keys
from clarion.plan.graph import Array

_MIXER_EPS = 1e-6  # of Falcon's norms within a Mamba layer, a constant of its code
_L2_EPS = 1e-6  # of the norms of query and key, a constant of the gated delta rule's implementations


@dataclass(frozen=True, slots=True)
class DeltaHeads:
    """The sizes of a gated delta net.

    Attributes:
        n_head, dim_v: heads of values, and elements of one.
        n_head_k, dim_k: heads of queries and keys, which heads of values share, and elements of one.
        taps: how many tokens the convolution sees.
    """

    n_head: int
    n_head_k: int
    dim_k: int
    dim_v: int
    taps: int


def delta_heads(keys: Keys) -> DeltaHeads:
    """The sizes that a file states.

    Raises:
        ModelError: one is missing, out of range, or contradicts another.
    """
    n_head, n_head_k = keys.integer("ssm.time_step_rank"), keys.integer("ssm.group_count")
    inner = keys.integer("ssm.inner_size")
    for name, n, divisor, other in (
        ("ssm.inner_size", inner, n_head, "ssm.time_step_rank"),
        ("ssm.time_step_rank", n_head, n_head_k, "ssm.group_count"),
    ):
        if n % divisor:
            raise ModelError(f"{keys.name(name)} is {n}, expected a multiple of {other}, {divisor}")
    taps = keys.integer("ssm.conv_kernel", minimum=2)
    return DeltaHeads(n_head, n_head_k, keys.integer("ssm.state_size"), inner // n_head, taps)


def recurrent_layers(keys: Keys, n_layer: int) -> tuple[bool, ...]:
    """Which layers are recurrent: as the file lists them, or all but each `full_attention_interval`-th."""
    interval = keys.integer("full_attention_interval", 4)
    pattern = [bool((layer + 1) % interval) for layer in range(n_layer)]
    return keys.flags("attention.recurrent_layers", n_layer, pattern)


def delta_net(layer: Layer, x: Array, heads: DeltaHeads, *, tiled: bool) -> Array:
    """The gated delta rule behind a convolution, normalised and gated: [T, n_embd]. (Yang et al., 2025, Gated
    Delta Networks)

    tiled: heads of values h, h + n_head_k, .. share a head of keys, else those that stand side by side. Which
        tensor says how much is written, and how fast states fade, goes with it: those of tiled heads are
        `ssm_beta` and `ssm_alpha`, and the others share `ssm_ba`, in which they stand by heads of keys.
    """
    g, w = layer.g, layer.w
    n, n_k, shared = heads.n_head, heads.n_head_k, heads.n_head // heads.n_head_k
    key, value = n_k * heads.dim_k, n * heads.dim_v
    width = 2 * key + value
    if "weight" in w.ssm_in:  # in old files all of a head of keys stands together
        mixed = g.linear(x, w.ssm_in, width + value)
        sizes = (heads.dim_k, heads.dim_k, shared * heads.dim_v, shared * heads.dim_v)
        first = (0, sizes[0], 2 * sizes[0], 2 * sizes[0] + sizes[2])
        q, k, v, z = (
            g.columns(mixed, begin, size, n_head=n_k) for begin, size in zip(first, sizes, strict=True)
        )
        mixed = g.join(g.join(q, k), v)
    else:
        mixed = g.linear(x, w.attn_qkv, width)  # [T, 2·key + value]
        z = g.linear(x, w.attn_gate, value)
    mixed = g.causal_conv(mixed, w.ssm_conv1d.matrix(width, heads.taps), None, silu=True)
    q, k = (g.l2_norm(g.columns(mixed, i * key, key), heads.dim_k, _L2_EPS) for i in range(2))
    v = g.columns(mixed, 2 * key, value)
    if tiled:
        beta, alpha = g.linear(x, w.ssm_beta, n), g.linear(x, w.ssm_alpha, n)  # [T, n_head]
    else:
        both = g.linear(x, w.ssm_ba, 2 * n)
        beta, alpha = (g.columns(both, i * shared, shared, n_head=n_k) for i in range(2))
    step = g.softplus(g.add_vector(alpha, w.ssm_dt.vector("bias", n)))
    decay = g.mul_vector(step, w.flat("ssm_a", n))
    o = g.delta_rule(
        q, k, v, decay, g.sigmoid(beta), n_head=n, n_head_k=n_k, tiled=tiled, scale=heads.dim_k**-0.5
    )  # [T, n_head·dim_v]
    o = g.head_norm(o, w.ssm_norm.vector("weight", heads.dim_v), heads.dim_v, layer.hp.norm_eps)
    return g.linear(silu_gate(z, o), w.ssm_out, layer.hp.n_embd)


@dataclass(frozen=True, slots=True)
class ScanSizes:
    """The sizes of a Mamba layer.

    Attributes:
        n: columns that are scanned.
        d_state: numbers that are kept of each.
        taps: how many tokens the convolution sees.
        rank: elements that the steps of time are made of; of Mamba 2, the number of heads.
        n_group: groups of heads that share what is read and written.
    """

    n: int
    d_state: int
    taps: int
    rank: int
    n_group: int = 1


def scan_sizes(keys: Keys, *, grouped: bool) -> ScanSizes:
    """The sizes that a file states; `grouped`: of Mamba 2.

    Raises:
        ModelError: one is missing, out of range, or contradicts another.
    """
    n, rank = keys.integer("ssm.inner_size"), keys.integer("ssm.time_step_rank")
    n_group = keys.integer("ssm.group_count") if grouped else 1
    if grouped and (n % rank or rank % n_group):
        raise ModelError(
            f"{keys.name('ssm.time_step_rank')} is {rank}, expected a divisor of ssm.inner_size, {n}, and a "
            f"multiple of ssm.group_count, {n_group}"
        )
    d_state, taps = keys.integer("ssm.state_size"), keys.integer("ssm.conv_kernel", minimum=2)
    return ScanSizes(n, d_state, taps, rank, n_group)


def mamba_layer(layer: Layer, x: Array, sizes: ScanSizes, *, normed: bool) -> Array:
    """Mamba's layer: [T, n_embd]. (Gu & Dao, 2023, Mamba)

    normed: steps of time, and what is written and read, are normalised. (Zuo et al., 2024, Falcon Mamba)
    """
    g, w, n, d_state = layer.g, layer.w, sizes.n, sizes.d_state
    x, z = (g.linear(x, w.ssm_in, 2 * n, rows=slice(i * n, (i + 1) * n)) for i in range(2))
    x = g.causal_conv(x, w.ssm_conv1d.matrix(n, sizes.taps), w.ssm_conv1d.bias(n), silu=True)
    mixed = g.linear(x, w.ssm_x, sizes.rank + 2 * d_state)
    dt, b, c = (
        g.columns(mixed, first, size)
        for first, size in ((0, sizes.rank), (sizes.rank, d_state), (sizes.rank + d_state, d_state))
    )
    if normed:
        dt, b, c = (g.rms_norm(y, None, _MIXER_EPS) for y in (dt, b, c))
    dt = g.bias(g.linear_of(dt, w.ssm_dt.matrix(n, sizes.rank)), w.ssm_dt.vector("bias", n))
    dt = g.softplus(dt)  # [T, n]
    y = g.selective_scan(x, dt, b, c, w.matrix(n, d_state, leaf="ssm_a"), w.flat("ssm_d", n))
    return g.linear(silu_gate(z, y), w.ssm_out, layer.hp.n_embd)


def mamba2_layer(layer: Layer, x: Array, sizes: ScanSizes) -> Array:
    """Mamba 2's layer: [T, n_embd]. (Dao & Gu, 2024, Transformers are SSMs)"""
    g, w, n, n_head = layer.g, layer.w, sizes.n, sizes.rank
    shared = sizes.n_group * sizes.d_state
    width = n + 2 * shared
    ends = (n, n + width, n + width + n_head)
    z, mixed, dt = (
        g.linear(x, w.ssm_in, ends[-1], rows=slice(begin, end))
        for begin, end in zip((0, *ends), ends, strict=False)
    )
    mixed = g.causal_conv(mixed, w.ssm_conv1d.matrix(width, sizes.taps), w.ssm_conv1d.bias(width), silu=True)
    x, b, c = (g.columns(mixed, first, size) for first, size in ((0, n), (n, shared), (n + shared, shared)))
    dt = g.softplus(g.add_vector(dt, w.ssm_dt.vector("bias", n_head)))  # [T, n_head]
    y = g.state_space_scan(
        x, dt, b, c, w.flat("ssm_a", n_head), w.flat("ssm_d", n_head), n_group=sizes.n_group
    )  # [T, n]
    y = g.head_norm(silu_gate(z, y), w.ssm_norm.flat("weight", n), n // sizes.n_group, layer.hp.norm_eps)
    return g.linear(y, w.ssm_out, layer.hp.n_embd)
