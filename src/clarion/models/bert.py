"""BERT, and RoBERTa's kind, whose files say `bert` too: encoders whose norms follow each sum.

Devlin et al., 2019, BERT; Conneau et al., 2020, Unsupervised Cross-lingual Representation Learning at Scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clarion.models.blocks import Layer, attention, encoder, plain_feed_forward
from clarion.models.family import ENCODER_KEYS, ENCODER_TENSORS, Computed, Family, HuggingFace, Made
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""

    def block(layer: Layer, x: Array) -> Array:
        x = layer.norm(x + attention(layer.unrotated, x, causal=False), "attn_output_norm")
        y = plain_feed_forward(layer, x, activation=lambda h: layer.g.gelu(h, tanh=False))
        return layer.norm(x + y, "layer_output_norm")

    found = figures(keys, w, norm="attention.layer_norm_epsilon")
    return encoder(keys, w, block, given=found, positions=True)


def _last(metadata: Mapping[str, Any], x: Any) -> Any:
    """The rows of positions, behind those of padding."""
    return x[-metadata["context_length"] :]


_LAYER = "model.encoder.layer.{layer}."
_BERT = HuggingFace(
    "bert",
    roots=("bert.", ""),
    beside=("embeddings.position_ids", "bert.embeddings.position_ids", "pooler.", "cls.", "bert.pooler."),
    common=ENCODER_KEYS,
    tensors={
        **ENCODER_TENSORS,
        "attn_q": _LAYER + "attention.self.query",
        "attn_k": _LAYER + "attention.self.key",
        "attn_v": _LAYER + "attention.self.value",
        "attn_output": _LAYER + "attention.output.dense",
        "attn_output_norm": _LAYER + "attention.output.LayerNorm",
        "ffn_up": _LAYER + "intermediate.dense",
        "ffn_down": _LAYER + "output.dense",
        "layer_output_norm": _LAYER + "output.LayerNorm",
        "cls": "model.pooler.dense",
        "cls.output.weight": "classifier.weight",
        "cls.output.bias": "classifier.bias",
    },
    only={
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    writes=False,
    rotates=False,
)
_XLM = replace(
    _BERT,
    model_type="xlm-roberta",
    roots=("roberta.", ""),
    beside=("embeddings.position_ids", "roberta.embeddings.position_ids", "pooler.", "lm_head."),
    keys={
        **_BERT.keys,
        "context_length": Computed(
            lambda config: config.integer("max_position_embeddings") - config.integer("pad_token_id") - 1
        ),
    },
    tensors={
        **_BERT.tensors,
        "position_embd.weight": Made("model.embeddings.position_embeddings.weight", _last),
        "cls": "classifier.dense",
        "cls.output.weight": "classifier.out_proj.weight",
        "cls.output.bias": "classifier.out_proj.bias",
    },
)
_ROBERTA = replace(_XLM, model_type="roberta")
FAMILY = Family("bert", build, (_BERT, _XLM, _ROBERTA))
