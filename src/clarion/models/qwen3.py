"""Qwen 3: each head of query and key is normalised before it is rotated.

Yang et al., 2025, Qwen3 Technical Report.
"""

from __future__ import annotations

from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import Family, HuggingFace
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=True, head_norm=True)
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block)


# Checkpoints of models that only make vectors begin with the layers themselves.
_QWEN3 = HuggingFace("qwen3", roots=("model.", ""), window="switch", words="qwen2")
FAMILY = Family("qwen3", build, (_QWEN3,))
