"""GLM 4 (0414) and GLM-OCR's text part: norms before and after both parts of a layer, gate and up in one
tensor, half of a head is rotated.

GLM Team, 2024, ChatGLM. Neighbouring elements are rotated together; in files with sections of positions
(M-RoPE) halves, whose rows are so ordered. Positions of a text are the same in all sections.
"""

from __future__ import annotations

from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import LAYER, Family, HuggingFace
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_SECTIONS = "rope.dimension_sections"


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    halves = _SECTIONS in keys and any(keys.integers(_SECTIONS, 4))

    def block(layer: Layer, x: Array) -> Array:
        o = attention(layer, layer.norm(x, "attn_norm"), neox=halves)
        x = x + layer.norm(o, "post_attention_norm")
        return x + layer.norm(feed_forward(layer, layer.norm(x, "ffn_norm")), "post_ffw_norm")

    return decoder(keys, w, block)


_GLM4 = HuggingFace(
    "glm4",
    tensors={
        "post_attention_norm": LAYER + "post_self_attn_layernorm",
        "ffn_norm": LAYER + "post_attention_layernorm",
        "ffn_up": LAYER + "mlp.gate_up_proj",
        "post_ffw_norm": LAYER + "post_mlp_layernorm",
    },
    only={"hidden_act": ("silu",)},
    partial_rotary=0.5,
)
FAMILY = Family("glm4", build, (_GLM4,))
