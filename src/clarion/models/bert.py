"""BERT, and XLM-RoBERTa, whose files say `bert` too: encoders whose norms follow each sum.

Devlin et al., 2019, BERT; Conneau et al., 2020, Unsupervised Cross-lingual Representation Learning at Scale.
"""

from __future__ import annotations

from clarion.models.blocks import Layer, attention, encoder, plain_feed_forward
from clarion.models.family import Family
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


FAMILY = Family("bert", build)
