"""Qwen 2 and 2.5: biases on query, key and value; halves of a head are rotated together.

Yang et al., 2024, Qwen2 Technical Report.
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
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=True)
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block)


FAMILY = Family("qwen2", build, (HuggingFace("qwen2", window="switch", words="qwen2"),))
