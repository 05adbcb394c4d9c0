"""BitNet b1.58: linear layers of ternary weights, each with a norm right before it.

Ma et al., 2024, The Era of 1-bit LLMs. The values in the file are ternary; TQ1_0 and TQ2_0 store them as
such. The head is the embedding.
"""

from __future__ import annotations

from clarion.errors import UnsupportedError
from clarion.models.keys import Keys, shown
from clarion.models.transformer import hyperparameters
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Graph


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    hp, rope = hyperparameters(keys, w)
    activation = keys.text("hidden_activation", "silu")
    if activation != "silu":
        raise UnsupportedError(
            f"{keys.name('hidden_activation')} is {shown(activation)}, only 'silu' is implemented"
        )
    n_q, n_kv = hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)  # [T, n_embd]
    r = g.rope_table(rope.inv_freq, rope.magnitude)
    for i in range(hp.n_layer):
        blk = w.blk[i]
        h = g.rms_norm(x, blk.attn_norm, hp.norm_eps)
        q = g.rope(g.linear(h, blk.attn_q, n_q), r, hp.head_dim, neox=True)  # [T, H·D]
        k = g.rope(g.linear(h, blk.attn_k, n_kv), r, hp.head_dim, neox=True)  # [T, H_kv·D]
        v = g.linear(h, blk.attn_v, n_kv)
        o = g.attention(q, k, v, hp.n_head, hp.n_head_kv, hp.attention_scale, hp.window)
        o = g.rms_norm(o, blk.attn_sub_norm, hp.norm_eps)
        x = x + g.linear(o, blk.attn_output, hp.n_embd)  # [T, n_embd]
        h = g.rms_norm(x, blk.ffn_norm, hp.norm_eps)
        gate = g.linear(h, blk.ffn_gate, hp.n_ff)  # [T, n_ff]
        h = g.rms_norm(g.silu(gate) * g.linear(h, blk.ffn_up, hp.n_ff), blk.ffn_sub_norm, hp.norm_eps)
        x = x + g.linear(h, blk.ffn_down, hp.n_embd)
    x = g.rms_norm(g.select(x), w.output_norm, hp.norm_eps)  # [O, n_embd]
    g.output(g.linear(x, w.token_embd, hp.n_vocab))  # [O, n_vocab]
    return g
