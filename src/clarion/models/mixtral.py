"""Mixtral: files that say `llama` and have experts.

Jiang et al., 2024, Mixtral of Experts: Mistral's attention, and a feed-forward network of which each token
uses the k parts that a router prefers, their weights renormalised.
"""

from __future__ import annotations

from clarion.models.keys import Keys
from clarion.models.transformer import hyperparameters, mixture
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    hp, rope = hyperparameters(keys, w, experts=True)
    normalize = keys.flag("expert_weights_norm", True)
    n_q, n_kv = hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)  # [T, n_embd]
    r = g.rope_table(rope.inv_freq, rope.magnitude)
    for i in range(hp.n_layer):
        blk = w.blk[i]
        h = g.rms_norm(x, blk.attn_norm, hp.norm_eps)
        q = g.rope(g.linear(h, blk.attn_q, n_q), r, hp.head_dim, neox=False)  # [T, H·D]
        k = g.rope(g.linear(h, blk.attn_k, n_kv), r, hp.head_dim, neox=False)  # [T, H_kv·D]
        v = g.linear(h, blk.attn_v, n_kv)
        o = g.attention(q, k, v, hp.n_head, hp.n_head_kv, hp.attention_scale, hp.window)
        x = x + g.linear(o, blk.attn_output, hp.n_embd)  # [T, n_embd]
        h = g.rms_norm(x, blk.ffn_norm, hp.norm_eps)
        x = x + mixture(g, h, blk, normalize=normalize)
    x = g.rms_norm(g.select(x), w.output_norm, hp.norm_eps)  # [O, n_embd]
    head = w.output if "weight" in w.output else w.token_embd
    g.output(g.linear(x, head, hp.n_vocab))  # [O, n_vocab]
    return g
