"""Llama 1 to 3.x, Mistral, Mixtral, and everything else whose file says `llama`.

Touvron et al., 2023, LLaMA; Jiang et al., 2023, Mistral 7B (sliding window); Jiang et al., 2024, Mixtral of
Experts, whose feed-forward networks are experts. Files hold query and key rows so ordered that neighbouring
elements of a head are rotated together.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from clarion.models.blocks import Layer, attention, decoder, experts, feed_forward, router
from clarion.models.family import EXPERT_KEYS, LAYER, Family, HuggingFace
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    has_experts = keys.integer("expert_count", 0, minimum=0) > 0
    network = feed_forward
    if has_experts:
        normalize = keys.flag("expert_weights_norm", True)
        network = partial(experts, router=partial(router, normalize=normalize))

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=False)
        return x + network(layer, layer.norm(x, "ffn_norm"))

    return decoder(keys, w, block, experts=has_experts)


_LLAMA = HuggingFace("llama", interleaved=("attn_q", "attn_k"), rope_factors="llama3")
_MISTRAL = replace(_LLAMA, model_type="mistral", window="always")
_MIXTRAL = replace(
    _MISTRAL,
    model_type="mixtral",
    keys=EXPERT_KEYS,
    tensors={
        "ffn_gate_inp": LAYER + "block_sparse_moe.gate",
        "ffn_gate_exps": LAYER + "block_sparse_moe.experts.{expert}.w1",
        "ffn_up_exps": LAYER + "block_sparse_moe.experts.{expert}.w3",
        "ffn_down_exps": LAYER + "block_sparse_moe.experts.{expert}.w2",
    },
)
FAMILY = Family("llama", build, (_LLAMA, _MISTRAL, _MIXTRAL))
