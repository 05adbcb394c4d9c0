"""Attention to rows that stand for the keys and the values of all heads (multi-head latent attention).

DeepSeek-AI, 2024, DeepSeek-V2, section 2.1. The row of a position is c, of `kv_lora_rank` elements, and a
rotated part that all heads share. A head's key is (K c, rotated), and its value V c, with K and V its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clarion.errors import ModelError
from clarion.models.blocks import Layer
from clarion.models.family import LAYER, Computed, Integer, Key, Made, Name
from clarion.models.keys import Keys
from clarion.models.rope import log_multiplier
from clarion.plan.graph import Array
from clarion.plan.hyperparameters import Hyperparameters

_EPS = 1e-6  # of the norms of latents, a constant of these models' code


@dataclass(frozen=True, slots=True)
class Latents:
    """The sizes of latent attention.

    Attributes:
        rank: elements of c.
        rank_q: elements of the latent that queries are made of; 0: they are made of the rows themselves.
        plain, rotated: elements of a head's key, those that are not and those that are rotated.
        dim_v: elements of a head's value.
        scale: what scores are times.
        slope, length: of `temperature` in the table of operations; slope 0: none.
    """

    rank: int
    rank_q: int
    plain: int
    rotated: int
    dim_v: int
    scale: float
    slope: float
    length: int


def latents(keys: Keys, hp: Hyperparameters) -> Latents:
    """The sizes that a file states.

    Raises:
        ModelError: one is missing, out of range, or contradicts another.
    """
    # Old files state the lengths of heads where newer ones have those of the rows.
    dim = keys.integer("attention.key_length_mla", hp.head_dim)
    if dim <= hp.n_rot:
        raise ModelError(
            f"{keys.name('attention.key_length_mla')} is {dim}, "
            f"expected more than rope.dimension_count, {hp.n_rot}"
        )
    slope = keys.number("attention.temperature_scale", 0.0, positive=False)
    original = keys.integer("rope.scaling.original_context_length", hp.context_length)
    return Latents(
        rank=keys.integer("attention.kv_lora_rank"),
        rank_q=keys.integer("attention.q_lora_rank", 0, minimum=0),
        plain=dim - hp.n_rot,
        rotated=hp.n_rot,
        dim_v=keys.integer("attention.value_length_mla", hp.dim_v),
        scale=dim**-0.5 * log_multiplier(keys),
        slope=slope,
        length=keys.integer("attention.temperature_length", original),
    )


def latent_attention(layer: Layer, x: Array, sizes: Latents, *, neox: bool = False) -> Array:
    """Latent attention: [T, n_embd].

    Where the file has K and V apart (`attn_k_b`, `attn_v_b`), K is multiplied with the query, and V with the
    sum of rows: what is kept of a position is its row. Where it has them in one (`attn_kv_b`), keys and
    values of all heads are made of each row, and kept.
    """
    g, w, n = layer.g, layer.w, layer.hp.n_head
    assert layer.rope is not None
    table = layer.tables[layer.rope]
    q = x
    if sizes.rank_q:
        q = g.rms_norm(g.linear(x, w.attn_q_a, sizes.rank_q), w.attn_q_a_norm, _EPS)
    q = g.linear(q, w.attn_q_b if sizes.rank_q else w.attn_q, n * (sizes.plain + sizes.rotated))
    q_plain = g.columns(q, 0, sizes.plain, n_head=n)
    q_rotated = g.columns(q, sizes.plain, sizes.rotated, n_head=n)
    q_rotated = g.rope(q_rotated, table, sizes.rotated, neox=neox)

    both = g.linear(x, w.attn_kv_a_mqa, sizes.rank + sizes.rotated)
    c = g.rms_norm(g.columns(both, 0, sizes.rank), w.attn_kv_a_norm, _EPS)  # [T, rank]
    k_rotated = g.rope(g.columns(both, sizes.rank, sizes.rotated), table, sizes.rotated, neox=neox)

    def sharpened(q: Array) -> Array:
        return g.mul_rows(q, g.temperature(sizes.slope, sizes.length)) if sizes.slope else q

    if "weight" in w.attn_k_b or "weight" in w.attn_v_b:
        w.attn_kv_b.leave()  # some files have both
        q = g.join(g.head_linear(q_plain, w.attn_k_b, n, sizes.rank), q_rotated, n_head=n)
        state = g.keep_latent(g.join(c, k_rotated), sizes.rank)
        o = g.attend_latent(sharpened(q), state, n, sizes.scale)  # [T, n_head·rank]
        o = g.head_linear(o, w.attn_v_b, n, sizes.dim_v)
    else:
        kv = g.linear(c, w.attn_kv_b, n * (sizes.plain + sizes.dim_v))
        k = g.columns(kv, 0, sizes.plain, n_head=n)
        k = g.join(k, g.repeat_heads(k_rotated, n, n_head=1), n_head=n)
        v = g.columns(kv, sizes.plain, sizes.dim_v, n_head=n)
        q = sharpened(g.join(q_plain, q_rotated, n_head=n))
        o = g.attend(q, g.keep(k, v, n), n, sizes.scale)  # [T, n_head·dim_v]
    return g.linear(o, w.attn_output, layer.hp.n_embd)


# ---- conversion -------------------------------------------------------------------------------------------


def _of_heads(metadata: Mapping[str, Any], x: Any) -> Any:
    """What makes keys [n_head, plain, rank] and values [n_head, dim_v, rank] of a row."""
    return x.reshape(metadata["attention.head_count"], -1, x.shape[-1])


def _keys(metadata: Mapping[str, Any], x: Any) -> Any:
    return _of_heads(metadata, x)[:, : -metadata["attention.value_length_mla"]].swapaxes(1, 2)


def _values(metadata: Mapping[str, Any], x: Any) -> Any:
    return _of_heads(metadata, x)[:, -metadata["attention.value_length_mla"] :]


def _sum(*names: str) -> Computed:
    return Computed(lambda config: sum(config.integer(name) for name in names))


LATENT_KEYS: dict[str, Key | None] = {
    "attention.head_count_kv": Computed(lambda config: 1),  # the rows that are kept
    "attention.key_length": _sum("kv_lora_rank", "qk_rope_head_dim"),
    "attention.value_length": Integer(("kv_lora_rank",)),
    "attention.key_length_mla": _sum("qk_nope_head_dim", "qk_rope_head_dim"),
    "attention.value_length_mla": Integer(("v_head_dim",)),
    "attention.q_lora_rank": Computed(
        lambda config: None if config.get("q_lora_rank") is None else config.integer("q_lora_rank")
    ),
    "attention.kv_lora_rank": Integer(("kv_lora_rank",)),
    "rope.dimension_count": Integer(("qk_rope_head_dim",)),
}
_ATTENTION = LAYER + "self_attn."
LATENT_TENSORS: dict[str, Name] = {
    "attn_q_a": _ATTENTION + "q_a_proj",
    "attn_q_a_norm": _ATTENTION + "q_a_layernorm",
    "attn_q_b": _ATTENTION + "q_b_proj",
    "attn_kv_a_mqa": _ATTENTION + "kv_a_proj_with_mqa",
    "attn_kv_a_norm": _ATTENTION + "kv_a_layernorm",
    "attn_k_b.weight": Made(_ATTENTION + "kv_b_proj.weight", _keys),
    "attn_v_b.weight": Made(_ATTENTION + "kv_b_proj.weight", _values),
}
