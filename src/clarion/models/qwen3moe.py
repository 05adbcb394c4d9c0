"""Qwen 3 with experts.

Yang et al., 2025, Qwen3 Technical Report. The weights of a token's experts sum to 1 unless the file says
otherwise.
"""

from __future__ import annotations

from functools import partial

from clarion.models.blocks import Layer, attention, decoder, experts, router
from clarion.models.family import EXPERT_KEYS, Family, Flag, HuggingFace, Integer
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    choice = partial(router, normalize=keys.flag("expert_weights_norm", True))

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=True, head_norm=True)
        return x + experts(layer, layer.norm(x, "ffn_norm"), router=choice)

    return decoder(keys, w, block, experts=True)


_KEYS = EXPERT_KEYS | {
    "expert_feed_forward_length": Integer(("moe_intermediate_size",)),
    "expert_weights_norm": Flag(("norm_topk_prob",), default=False, unwritten=True),
}
FAMILY = Family("qwen3moe", build, (HuggingFace("qwen3_moe", keys=_KEYS, window="switch", words="qwen2"),))
