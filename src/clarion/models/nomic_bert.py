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
from clarion.models.family import Family
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


FAMILY = Family("nomic-bert", build)
EXPERTS = Family("nomic-bert-moe", build_experts)
