"""Phi 3 and 4: query, key and value in one tensor, and gate and up in another; LongRoPE.

Abdin et al., 2024, Phi-3 Technical Report; Ding et al., 2024, LongRoPE.
"""

from __future__ import annotations

from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import LAYER, Family, HuggingFace
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"))
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block)


_PHI3 = HuggingFace(
    "phi3",
    tensors={
        "attn_qkv": LAYER + "self_attn.qkv_proj",
        "ffn_up": LAYER + "mlp.gate_up_proj",
    },
    only={"hidden_act": ("silu",)},
    window="always",
    partial_rotary=1.0,
    rope_factors="longrope",
)
FAMILY = Family("phi3", build, (_PHI3,))
