"""Jina's encoders: the second with slopes in the place of positions (ALiBi), the third with rotation.

Günther et al., 2023, Jina Embeddings 2; Sturua et al., 2024, jina-embeddings-v3. What the third learnt for
one task only (LoRA) stands in files of its own, which are merged first.
"""

from __future__ import annotations

from clarion.models.blocks import Gate, Layer, attention, encoder, feed_forward, plain_feed_forward
from clarion.models.family import (
    ENCODER_KEYS,
    ENCODER_TENSORS,
    Computed,
    Family,
    HuggingFace,
)
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_NORM = "attention.layer_norm_epsilon"
_MAX_BIAS = 8.0  # of ALiBi; files do not state it


def slopes(n_head: int) -> list[float]:
    """ALiBi's slopes: 2^(-8i/n) for n heads where n is a power of two; else those of the power below n, and
    between them every other one of twice as many heads. [Press et al., 2022, ALiBi]"""
    n = 1 << (n_head.bit_length() - 1)
    powers = [2 ** (-_MAX_BIAS * (i + 1) / n) for i in range(n)]
    between = [2 ** (-_MAX_BIAS * (2 * i + 1) / (2 * n)) for i in range(n_head - n)]
    return powers + between


def gelu_gate(gate: Array, up: Array) -> Array:
    """gelu(gate) · up, by the normal distribution itself."""
    return gate.graph.gelu(gate, tanh=False) * up


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph of the second; see `clarion.models.build`."""
    found = figures(keys, w, norm=_NORM)
    keys.number("attention.max_alibi_bias", _MAX_BIAS)
    found_slopes = slopes(found.all.n_head)

    def block(layer: Layer, x: Array) -> Array:
        with_norms = "weight" in layer.w.attn_q_norm
        y = attention(layer.unrotated, x, causal=False, slopes=found_slopes, row_norm=with_norms)
        y = layer.norm(x + y, "attn_output_norm")
        if "weight" in layer.w.attn_norm_2:
            y = layer.norm(x + y, "attn_norm_2")
        return layer.norm(y + _network(layer, y, gelu_gate), "layer_output_norm")

    return encoder(keys, w, block, given=found)


def _network(layer: Layer, x: Array, gate: Gate) -> Array:
    """With a gate where the file has one, apart or in one tensor."""
    if "weight" in layer.w.ffn_gate or layer.w.ffn_up.n_rows() == 2 * layer.hp.n_ff:
        return feed_forward(layer, x, gate=gate)
    return plain_feed_forward(layer, x, activation=lambda h: layer.g.gelu(h, tanh=False))


def build_rotated(keys: Keys, w: Checkpoint) -> Graph:
    """The graph of the third; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = layer.norm(x + attention(layer, x, causal=False), "attn_output_norm")
        y = plain_feed_forward(layer, x, activation=lambda h: layer.g.gelu(h, tanh=False))
        return layer.norm(x + y, "layer_output_norm")

    return encoder(keys, w, block, given=figures(keys, w, norm=_NORM))


_LAYER = "model.encoder.layers.{layer}."
_V3 = HuggingFace(
    "jina_embeddings_v3",
    roots=("roberta.", ""),
    beside=("pooler.", "roberta.pooler.", "lm_head."),
    common=ENCODER_KEYS,
    keys={
        "context_length": Computed(
            lambda config: config.integer("max_position_embeddings") - config.integer("pad_token_id") - 1
        ),
    },
    tensors={
        **ENCODER_TENSORS,
        "token_embd_norm": "model.emb_ln",
        "attn_qkv": _LAYER + "mixer.Wqkv",
        "attn_output": _LAYER + "mixer.out_proj",
        "attn_output_norm": _LAYER + "norm1",
        "ffn_up": _LAYER + "mlp.fc1",
        "ffn_down": _LAYER + "mlp.fc2",
        "layer_output_norm": _LAYER + "norm2",
    },
    only={"hidden_act": ("gelu",)},
    writes=False,
    rope_base=20000.0,
)
FAMILY = Family("jina-bert-v2", build)
ROTATED = Family("jina-bert-v3", build_rotated, (_V3,))
