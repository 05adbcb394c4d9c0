"""OLMo 2 and 3: norms only after both parts of a layer, and over all of query and of key together. OLMo 3 has
a window in three of four layers, which rotate without scaling.

OLMo Team, 2024, 2 OLMo 2 Furious; 2025, OLMo 3.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import LAYER, Family, HuggingFace
from clarion.models.hyperparameters import Windows, figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = x + layer.norm(attention(layer, x, row_norm=True), "post_attention_norm")
        return x + layer.norm(feed_forward(layer, x), "post_ffw_norm")

    return decoder(keys, w, block, given=figures(keys, w, windows=Windows(4, scaled=False)))


_OLMO2 = HuggingFace(
    "olmo2",
    tensors={
        "post_attention_norm": LAYER + "post_attention_layernorm",
        "post_ffw_norm": LAYER + "post_feedforward_layernorm",
    },
)
_OLMO3 = replace(_OLMO2, model_type="olmo3", window="layers", period=4)
FAMILY = Family("olmo2", build, (_OLMO2, _OLMO3))
