"""Rows of a table that each layer adds, chosen by the token: per-layer embeddings.

Gemma Team, 2025, Gemma 3n. A file has the tables of all layers side by side, `per_layer_token_embd`.
"""

from __future__ import annotations

from clarion.models.blocks import Layer
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array


def gathered(x: Array, w: Checkpoint, n: int) -> Array:
    """What the tables, and a projection of the first rows x, give for all layers: [T, n_layer·n]."""
    g, hp = x.graph, x.graph.hyperparameters
    table = g.embed(w.per_layer_token_embd, hp.n_vocab, hp.n_layer * n, n**0.5)
    y = g.scale(g.linear(x, w.per_layer_model_proj, hp.n_layer * n), hp.n_embd**-0.5)
    y = g.head_norm(y, w.per_layer_proj_norm.vector("weight", n), n, hp.norm_eps)
    return g.scale(y + table, 2**-0.5)


def of_table(layer: Layer, x: Array, rows: Array, n: int) -> Array:
    """What a layer makes of its own of the gathered rows, gated by x: [T, n_embd]."""
    g, w = layer.g, layer.w
    y = g.gelu(g.linear(x, w.inp_gate, n), tanh=True) * g.columns(rows, layer.number * n, n)
    return layer.norm(g.linear(y, w.proj, layer.hp.n_embd), "post_norm")
