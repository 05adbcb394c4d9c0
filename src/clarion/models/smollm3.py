"""SmolLM 3: a Llama of which every fourth layer knows no positions.

Bakouch et al., 2025, SmolLM3. Files hold query and key rows so ordered that neighbouring elements of a head
are rotated together.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import Family, HuggingFace
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_PERIOD = 4


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        if layer.number % _PERIOD == _PERIOD - 1:
            layer = replace(layer, rope=None)
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=False)
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block)


_SMOLLM3 = HuggingFace(
    "smollm3", interleaved=("attn_q", "attn_k"), unrotated=_PERIOD, rope_base=2e6, tied=True, window="switch"
)
FAMILY = Family("smollm3", build, (_SMOLLM3,))
