"""Qwen 3: each head of query and key is normalised before it is rotated.

Yang et al., 2025, Qwen3 Technical Report.
"""

from __future__ import annotations

from clarion.models.keys import Keys
from clarion.models.transformer import feed_forward, hyperparameters
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    hp, rope = hyperparameters(keys, w)
    n_q, n_kv = hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)  # [T, n_embd]
    r = g.rope_table(rope.inv_freq, rope.magnitude)
    for i in range(hp.n_layer):
        blk = w.blk[i]
        h = g.rms_norm(x, blk.attn_norm, hp.norm_eps)
        q = g.linear(h, blk.attn_q, n_q)  # [T, H·D]
        k = g.linear(h, blk.attn_k, n_kv)  # [T, H_kv·D]
        v = g.linear(h, blk.attn_v, n_kv)
        q = g.head_norm(q, blk.attn_q_norm, hp.head_dim, hp.norm_eps)
        k = g.head_norm(k, blk.attn_k_norm, hp.head_dim, hp.norm_eps)
        q = g.rope(q, r, hp.head_dim, neox=True)
        k = g.rope(k, r, hp.head_dim, neox=True)
        o = g.attention(q, k, v, hp.n_head, hp.n_head_kv, hp.attention_scale, hp.window)
        x = x + g.linear(o, blk.attn_output, hp.n_embd)  # [T, n_embd]
        h = g.rms_norm(x, blk.ffn_norm, hp.norm_eps)
        x = x + feed_forward(g, h, blk)
    x = g.rms_norm(g.select(x), w.output_norm, hp.norm_eps)  # [O, n_embd]
    head = w.output if "weight" in w.output else w.token_embd
    g.output(g.linear(x, head, hp.n_vocab))  # [O, n_vocab]
    return g
