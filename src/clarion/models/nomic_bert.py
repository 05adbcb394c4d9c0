"""Nomic's BERT: rotated positions and SwiGLU; the second, in every other layer, experts.

Nussbaum et al., 2024, Nomic Embed; Nussbaum & Duderstadt, 2025, Training Sparse Mixture Of Experts Text
Embedding Models.
"""

from __future__ import annotations

from functools import partial

from clarion.models.blocks import (
    Layer,
    attention,
    encoder,
    feed_forward,
    plain_experts,
    plain_feed_forward,
    router,
)
from clarion.models.family import (
    ENCODER_KEYS,
    ENCODER_TENSORS,
    Computed,
    Family,
    HuggingFace,
    Integer,
)
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_NORM = "attention.layer_norm_epsilon"


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = layer.norm(x + attention(layer, x, causal=False), "attn_output_norm")
        return layer.norm(x + feed_forward(layer, x), "layer_output_norm")

    return encoder(keys, w, block, given=figures(keys, w, norm=_NORM))


def build_experts(keys: Keys, w: Checkpoint) -> Graph:
    """The graph of the second; see `clarion.models.build`."""
    every = keys.integer("moe_every_n_layers", 0, minimum=0)
    weights_scale = keys.number("expert_weights_scale", 1.0)
    choice = partial(router, normalize=False, scale=weights_scale)

    def block(layer: Layer, x: Array) -> Array:
        def gelu(h: Array) -> Array:
            return layer.g.gelu(h, tanh=False)

        x = layer.norm(x + attention(layer, x, causal=False), "attn_output_norm")
        if every and layer.number % every == 1:
            y = plain_experts(layer, x, router=choice, activation=gelu)
        else:
            y = plain_feed_forward(layer, x, activation=gelu)
        return layer.norm(x + y, "layer_output_norm")

    return encoder(keys, w, block, given=figures(keys, w, experts=every > 0, norm=_NORM))


_LAYER = "model.encoder.layers.{layer}."
_NOMIC = HuggingFace(
    "nomic_bert",
    roots=("nomic_bert.", "bert.", ""),
    beside=("cls.", "pooler.", "nomic_bert.pooler.", "bert.pooler."),
    common={
        **ENCODER_KEYS,
        "block_count": Integer(("num_hidden_layers", "n_layer")),
        # Files of 8192 positions were trained with 2048.
        "context_length": Computed(lambda c: min(c.integer("max_position_embeddings", "n_positions"), 2048)),
        "embedding_length": Integer(("hidden_size", "n_embd")),
        "feed_forward_length": Integer(("intermediate_size", "n_inner")),
        "attention.head_count": Integer(("num_attention_heads", "n_head")),
        "attention.key_length": Computed(
            lambda c: c.integer("hidden_size", "n_embd") // c.integer("num_attention_heads", "n_head")
        ),
    },
    keys={"attention.value_length": None},
    tensors={
        **ENCODER_TENSORS,
        "token_embd_norm": "model.emb_ln",
        "attn_qkv": _LAYER + "attn.Wqkv",
        "attn_output": _LAYER + "attn.out_proj",
        "attn_output_norm": _LAYER + "norm1",
        "ffn_up": _LAYER + "mlp.fc11",
        "ffn_gate": _LAYER + "mlp.fc12",
        "ffn_down": _LAYER + "mlp.fc2",
        "layer_output_norm": _LAYER + "norm2",
    },
    only={
        "hidden_act": ("silu",),
        "activation_function": ("swiglu",),
        "prenorm": (False,),
        "rotary_emb_fraction": (1,),
        "rotary_emb_interleaved": (False,),
        "moe_every_n_layers": (0,),
    },
    writes=False,
    rope_base=1000.0,
)
FAMILY = Family("nomic-bert", build, (_NOMIC,))
EXPERTS = Family("nomic-bert-moe", build_experts)
