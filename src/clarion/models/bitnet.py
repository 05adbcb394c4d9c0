"""BitNet b1.58: linear layers of ternary weights, each with a norm right before it.

Ma et al., 2024, The Era of 1-bit LLMs. The values in the file are ternary; TQ1_0 and TQ2_0 store them as
such. The head is the embedding.
"""

from __future__ import annotations

from clarion.errors import UnsupportedError
from clarion.models.blocks import Layer, attention, decoder, feed_forward
from clarion.models.family import LAYER, ONLY, PROJECTIONS, Family, HuggingFace
from clarion.models.keys import Keys, shown
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    activation = keys.text("hidden_activation", "silu")
    if activation != "silu":
        raise UnsupportedError(
            f"{keys.name('hidden_activation')} is {shown(activation)}, only 'silu' is implemented"
        )

    def block(layer: Layer, x: Array) -> Array:
        x = x + attention(layer, layer.norm(x, "attn_norm"), neox=True, sub_norm=True)
        return x + feed_forward(layer, layer.norm(x, "ffn_norm"), sub_norm=True)

    return decoder(keys, w, block, tied=True)


# The checkpoints of 1bitLLM, whose code is not a part of transformers.
_1BITLLM = HuggingFace(
    "bitnet_b1_58",
    architecture="BitnetForCausalLM",
    tensors={
        "attn_sub_norm": LAYER + "self_attn.inner_attn_ln",
        "ffn_sub_norm": LAYER + "mlp.ffn_layernorm",
    },
    only={**ONLY, "tie_word_embeddings": (True,)},
    ternary=PROJECTIONS,
)
FAMILY = Family("bitnet", build, (_1BITLLM,))
