"""The blocks that families are made of. What varies between families is a keyword of a block.

A block takes a layer and rows, [T, n_embd], and gives rows. A family puts blocks together to one that is all
of a layer, and `decoder` repeats that. Where layers differ, the family's block asks `layer.number`, and gives
the others a changed copy of the layer: `replace(layer, rope=None)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clarion.errors import UnsupportedError
from clarion.models.hyperparameters import hyperparameters
from clarion.models.keys import Keys
from clarion.models.rope import Rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph
from clarion.plan.hyperparameters import Hyperparameters


class RopeTables(dict[Rope, Array]):
    """The tables of a graph's rotations; each is computed once for a batch, before the first layer that
    rotates so."""

    def __init__(self, g: Graph) -> None:
        super().__init__()
        self._g = g

    def __missing__(self, rope: Rope) -> Array:
        table = self[rope] = self._g.rope_table(rope.inv_freq, rope.magnitude)
        return table


@dataclass(frozen=True, slots=True)
class Layer:
    """What the blocks of one layer are made of.

    Attributes:
        g: the graph that grows.
        number: from 0.
        w: the layer's tensors, those below `blk.<number>`.
        hp: the figures that hold in this layer.
        rope: how query and key are rotated; None: the layer knows no positions.
        tables: the rotations' tables, of all layers together.
    """

    g: Graph
    number: int
    w: Checkpoint
    hp: Hyperparameters
    rope: Rope | None
    tables: RopeTables

    def norm(self, x: Array, gain: str) -> Array:
        """RMS norm of rows by the layer's vector of that name."""
        return self.g.rms_norm(x, self.w[gain], self.hp.norm_eps)


Block = Callable[[Layer, Array], Array]
# Which experts a token uses, and their weights: ids [T, k] and weights [T, k] of rows [T, n_embd].
Router = Callable[[Layer, Array], tuple[Array, Array]]


def attention(
    layer: Layer, x: Array, *, neox: bool, head_norm: bool = False, sub_norm: bool = False
) -> Array:
    """Causal attention over the layer's own state, with its projections: [T, n_embd].

    Args:
        neox: the halves of a head are rotated together, else neighbouring elements.
        head_norm: each head of query and key is normalised before it is rotated.
        sub_norm: what the heads give is normalised before the last projection.
    """
    g, w, hp = layer.g, layer.w, layer.hp

    def heads(name: str, n: int) -> Array:
        y = g.linear(x, w[name], n * hp.head_dim)  # [T, n·D]
        if head_norm:
            y = g.head_norm(y, w[f"{name}_norm"], hp.head_dim, hp.norm_eps)
        return y if layer.rope is None else g.rope(y, layer.tables[layer.rope], hp.head_dim, neox=neox)

    q, k = heads("attn_q", hp.n_head), heads("attn_k", hp.n_head_kv)
    v = g.linear(x, w.attn_v, hp.n_head_kv * hp.head_dim)  # [T, H_kv·D]
    o = g.attention(q, k, v, hp.n_head, hp.n_head_kv, hp.attention_scale, hp.window)  # [T, H·D]
    if sub_norm:
        o = layer.norm(o, "attn_sub_norm")
    return g.linear(o, w.attn_output, hp.n_embd)


def feed_forward(layer: Layer, x: Array, *, sub_norm: bool = False) -> Array:
    """W_down (silu(W_gate x) · W_up x): [T, n_embd]. (Shazeer, 2020, SwiGLU)

    sub_norm: the product is normalised before W_down.
    """
    g, w, hp = layer.g, layer.w, layer.hp
    gate = g.linear(x, w.ffn_gate, hp.n_ff)  # [T, n_ff]
    up = g.linear(x, w.ffn_up, hp.n_ff)
    h = g.silu(gate) * up
    if sub_norm:
        h = layer.norm(h, "ffn_sub_norm")
    return g.linear(h, w.ffn_down, hp.n_embd)


def softmax_router(layer: Layer, x: Array, *, normalize: bool) -> tuple[Array, Array]:
    """The k experts with the highest softmax, a `Router`. (Jiang et al., 2024, Mixtral of Experts)

    normalize: the k weights sum to 1.
    """
    hp = layer.hp
    scores = layer.g.linear(x, layer.w.ffn_gate_inp, hp.n_expert)  # [T, E]
    return layer.g.route(scores, hp.n_expert_used, normalize=normalize)  # [T, k]


def experts(layer: Layer, x: Array, *, router: Router) -> Array:
    """The feed-forward network once for each of the k experts that the router prefers, weighted: [T, n_embd].

    Raises:
        UnsupportedError: the file has one tensor per expert.
    """
    g, w, hp = layer.g, layer.w, layer.hp
    if "0.weight" in w.ffn_gate:
        raise UnsupportedError(
            f"'{w.prefix}.ffn_gate.0.weight': files with one tensor per expert are not read"
        )
    ids, weights = router(layer, x)
    gate = g.expert_linear(x, ids, w.ffn_gate_exps, hp.n_expert, hp.n_ff)  # [S, n_ff], S = T·k
    up = g.expert_linear(x, ids, w.ffn_up_exps, hp.n_expert, hp.n_ff)
    down = g.expert_linear(g.silu(gate) * up, ids, w.ffn_down_exps, hp.n_expert, hp.n_embd)  # [S, n_embd]
    return g.expert_sum(down, weights)


def decoder(keys: Keys, w: Checkpoint, block: Block, *, experts: bool = False, tied: bool = False) -> Graph:
    """The graph of a model that writes: the embedding, `block` for each layer, and the logits.

    Args:
        block: what a layer makes of the rows, residuals among it.
        experts: the feed-forward networks are experts.
        tied: the embedding is always the head; else it is where the file has no head.
    """
    hp, rope = hyperparameters(keys, w, experts=experts)
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)  # [T, n_embd]
    tables = RopeTables(g)
    tables[rope]  # before the first layer, which all plans share
    for i in range(hp.n_layer):
        x = block(Layer(g, i, w.blk[i], hp, rope, tables), x)
    x = g.rms_norm(g.select(x), w.output_norm, hp.norm_eps)  # [O, n_embd]
    head = w.token_embd if tied or "weight" not in w.output else w.output
    g.output(g.linear(x, head, hp.n_vocab))  # [O, n_vocab]
    return g
