"""The blocks that families are made of. What varies between families is a keyword of a block.

A block takes a layer and rows, [T, n_embd], and gives rows. A family puts blocks together to one that is all
of a layer, and `decoder` repeats that. Where layers differ, the family's block asks `layer.number`, and gives
the others a changed copy of the layer: `replace(layer, rope=None)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clarion.errors import ModelError, ParameterError, UnsupportedError
from clarion.models.heads import classifier, finish
from clarion.models.hyperparameters import Figures, figures
from clarion.models.keys import Keys
from clarion.models.rope import Rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.operations.products import SIGMOID, SOFTMAX, SOFTMAX_OF_CHOSEN, SQRT_SOFTPLUS
from clarion.plan.output import Logits, Output, Pooled, Pooling


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

    @property
    def unrotated(self) -> Layer:
        """The layer without rotation."""
        return replace(self, rope=None)

    def norm(self, x: Array, name: str) -> Array:
        """The norm of rows by the layer's vectors of that name: RMS, or LayerNorm where there is a bias."""
        if "bias" in self.w[name]:
            return self.g.layer_norm(x, self.w[name], self.hp.norm_eps)
        return self.g.rms_norm(x, self.w[name], self.hp.norm_eps)

    def rotate(self, x: Array, *, neox: bool) -> Array:
        """The heads of x rotated as the layer says."""
        if self.rope is None:
            return x
        return self.g.rope(x, self.tables[self.rope], self.hp.head_dim, neox=neox)


_LOGITS = Logits()
Block = Callable[[Layer, Array], Array]
# Which experts a token uses, and their weights: ids [T, k] and weights [T, k] of rows [T, n_embd].
Router = Callable[[Layer, Array], tuple[Array, Array]]
# What becomes of gate and up, [T, n_ff] both.
Gate = Callable[[Array, Array], Array]


# ---- attention --------------------------------------------------------------------------------------------


def projections(
    layer: Layer, x: Array, *, query_times: int = 1, keys_as_values: bool = False
) -> tuple[Array, Array, Array]:
    """Query [T, n_head·head_dim·query_times], key [T, n_head_kv·head_dim] and value [T, n_head_kv·dim_v] of
    rows, from tensors of their own or from the one that holds all three, `attn_qkv`.

    keys_as_values: without a tensor of values, they are the keys.
    """
    g, w, hp = layer.g, layer.w, layer.hp
    dim_v = hp.dim_v or hp.head_dim
    widths = (hp.n_head * hp.head_dim * query_times, hp.n_head_kv * hp.head_dim, hp.n_head_kv * dim_v)
    names = ("attn_q", "attn_k", "attn_v")
    if "weight" not in w.attn_qkv:
        _check_query(w, widths[0], x.value.width)
        q, k = (g.linear(x, w[name], n) for name, n in zip(names[:2], widths[:2], strict=True))
        return q, k, k if keys_as_values and "weight" not in w.attn_v else g.linear(x, w.attn_v, widths[2])
    found, begin = [], 0
    for name, n in zip(names, widths, strict=True):
        y = g.linear(x, w.attn_qkv, sum(widths), rows=slice(begin, begin + n))
        bias = w[name].bias(n)
        found.append(g.add_vector(y, bias) if bias else y)
        begin += n
    q, k, v = found
    return q, k, v


def _check_query(w: Checkpoint, n_rows: int, n_cols: int) -> None:
    """Raises ModelError where there is no `attn_q` either, in the place of `attn_qkv`."""
    try:
        w.attn_q.matrix(n_rows, n_cols)
    except ModelError as error:
        # A checkpoint that is converted has names of its own for what is missing.
        if "weight" in w.attn_q or not str(error).startswith(f"tensor '{w.prefix}.attn_q.weight' is missing"):
            raise
        raise ModelError(f"tensor '{w.prefix}.attn_qkv.weight' is missing, and {error}") from error


def attention(
    layer: Layer,
    x: Array,
    *,
    neox: bool = True,
    head_norm: bool = False,
    row_norm: bool = False,
    sub_norm: bool = False,
    gated: bool = False,
    gate_in_query: bool = False,
    sinks: bool = False,
    causal: bool = True,
    chunked: bool = False,
    cap: float = 0.0,
    slopes: Sequence[float] = (),
    value_norm: bool = False,
    keys_as_values: bool = False,
    state: int | None = None,
) -> Array:
    """Attention over the layer's own state, with its projections: [T, n_embd].

    Args:
        neox: the halves of a head are rotated together, else neighbouring elements.
        head_norm: each head of query and key is normalised before it is rotated.
        row_norm: all heads of query, and all of key, are normalised together.
        sub_norm: what the heads give is normalised before the last projection.
        gated: what the heads give is times sigmoid(W_gate x), of the tensor `attn_gate`.
        gate_in_query: so it is, and of the rows of `attn_q` each head has its query's, then its gate's.
        sinks: each head has one more score, of the vector `attn_sinks`.
        causal, chunked, cap, slopes: as in the table of operations.
        value_norm: each head of values is normalised, without a gain.
        keys_as_values: as for `projections`.
        state: what an earlier layer wrote to; this one has only queries, and what its file has beside them is
            left unread. None: a state of its own.
    """
    g, w, hp = layer.g, layer.w, layer.hp
    gate = None

    def turned(y: Array, norm: str) -> Array:
        return rotated(layer, y, norm, neox=neox, head_norm=head_norm, row_norm=row_norm)

    if state is None:
        times = 2 if gate_in_query else 1
        q, k, v = projections(layer, x, query_times=times, keys_as_values=keys_as_values)
        if gate_in_query:
            gate = g.columns(q, hp.head_dim, hp.head_dim, n_head=hp.n_head)
            q = g.columns(q, 0, hp.head_dim, n_head=hp.n_head)
        if value_norm:  # before keys, which may be the values, are rotated in their place
            v = g.head_norm(v, None, hp.dim_v or hp.head_dim, hp.norm_eps)
        q, k = turned(q, "attn_q_norm"), turned(k, "attn_k_norm")
        state = g.keep(k, v, hp.n_head_kv, 0 if chunked or not causal else hp.window)
    else:
        q = turned(g.linear(x, w.attn_q, hp.n_head * hp.head_dim), "attn_q_norm")
        for name in ("attn_k", "attn_v", "attn_k_norm"):
            w[name].leave()
    o = g.attend(
        q,
        state,
        hp.n_head,
        hp.attention_scale,
        window=hp.window,
        chunked=chunked,
        causal=causal,
        cap=cap,
        slopes=slopes,
        sinks=w.attn_sinks.vector("weight", hp.n_head) if sinks else None,
    )  # [T, n_head·dim_v]
    if gated:
        gate = g.linear(x, w.attn_gate, o.value.width)
    if gate:
        o = o * g.sigmoid(gate)
    if sub_norm:
        o = layer.norm(o, "attn_sub_norm")
    return g.linear(o, w.attn_output, hp.n_embd)


def rotated(
    layer: Layer, x: Array, norm: str, *, neox: bool, head_norm: bool = False, row_norm: bool = False
) -> Array:
    """Query or key, normalised by the vector `norm` where so, and rotated."""
    g, w, hp = layer.g, layer.w, layer.hp
    if head_norm:
        x = g.head_norm(x, w[norm].vector("weight", hp.head_dim), hp.head_dim, hp.norm_eps)
    if row_norm:
        x = layer.norm(x, norm)
    return layer.rotate(x, neox=neox)


# ---- feed-forward networks --------------------------------------------------------------------------------


def silu_gate(gate: Array, up: Array) -> Array:
    """silu(gate) · up. (Shazeer, 2020, SwiGLU)"""
    return gate.graph.silu(gate) * up


def gelu_gate(gate: Array, up: Array) -> Array:
    """gelu(gate) · up, by tanh. (Shazeer, 2020, GeGLU)"""
    return gate.graph.gelu(gate, tanh=True) * up


def feed_forward(
    layer: Layer, x: Array, *, gate: Gate = silu_gate, sub_norm: bool = False, suffix: str = "", n_ff: int = 0
) -> Array:
    """W_down gate(W_gate x, W_up x): [T, n_embd].

    Args:
        gate: what becomes of both products.
        sub_norm: that is normalised before W_down.
        suffix: of the tensors' names; `n_ff`: their width, where it is not the layer's.
    """
    g, w = layer.g, layer.w
    up_and_gate, n = w[f"ffn_up{suffix}"], n_ff or layer.hp.n_ff
    if "weight" in w[f"ffn_gate{suffix}"] or up_and_gate.n_rows() == n:
        gated = g.linear(x, w[f"ffn_gate{suffix}"], n)  # [T, n_ff]
        up = g.linear(x, up_and_gate, n)
    else:  # one tensor holds the rows of both
        gated = g.linear(x, up_and_gate, 2 * n, rows=slice(n))
        up = g.linear(x, up_and_gate, 2 * n, rows=slice(n, 2 * n))
    h = gate(gated, up)
    if sub_norm:
        h = layer.norm(h, "ffn_sub_norm")
    return g.linear(h, w[f"ffn_down{suffix}"], layer.hp.n_embd)


def plain_feed_forward(layer: Layer, x: Array, *, activation: Callable[[Array], Array]) -> Array:
    """W_down activation(W_up x): [T, n_embd]."""
    g, w, hp = layer.g, layer.w, layer.hp
    return g.linear(activation(g.linear(x, w.ffn_up, hp.n_ff)), w.ffn_down, hp.n_embd)


def shared_expert(layer: Layer, x: Array, *, n_ff: int, gated: bool = False) -> Array:
    """The network that all tokens use beside their experts: [T, n_embd].

    gated: times sigmoid(w · x), of the vector `ffn_gate_inp_shexp`.
    """
    y = feed_forward(layer, x, suffix="_shexp", n_ff=n_ff)
    if not gated:
        return y
    g, w = layer.g, layer.w.ffn_gate_inp_shexp
    weight = w.row(layer.hp.n_embd)
    return g.mul_rows(y, g.sigmoid(g.linear_of(x, weight)))


def router(
    layer: Layer,
    x: Array,
    *,
    gating: int = 0,
    normalize: bool,
    bias: bool = False,
    n_group: int = 1,
    n_group_used: int = 1,
    group_top: int = 1,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """The k experts with the highest scores, a `Router`: `route` in the table of operations says what the
    arguments mean. (Jiang et al., 2024, Mixtral of Experts)

    bias: the choice adds the vector `exp_probs_b`.
    """
    g, w, hp = layer.g, layer.w, layer.hp
    scores = g.linear(x, w.ffn_gate_inp, hp.n_expert)  # [T, E]
    return g.route(
        scores,
        hp.n_expert_used,
        gating=gating,
        bias=w.exp_probs_b.finite("bias", hp.n_expert) if bias else None,
        n_group=n_group,
        n_group_used=n_group_used,
        group_top=group_top,
        normalize=normalize,
        scale=scale,
    )  # [T, k]


# Files number what weights are made of scores with from 1 on; 0: they do not say.
_GATINGS = {1: SOFTMAX, 2: SIGMOID, 3: SOFTMAX_OF_CHOSEN, 4: SQRT_SOFTPLUS}


def stated_router(
    keys: Keys, hp: Hyperparameters, *, normalize: bool = False, group_top: int | None = None
) -> Router:
    """The router that a file states.

    Args:
        normalize: whether weights are divided by their sum where the file does not say.
        group_top: how many of a group's best experts tell which groups are used; None: two where weights are
            sigmoids, else one.

    Where the file does not name the function, it is the sigmoid for layers with a bias of the choice, else
    the softmax.

    Raises:
        UnsupportedError: an unknown function.
    """
    stated = keys.integer("expert_gating_func", 0, minimum=0)
    if stated and stated not in _GATINGS:
        raise UnsupportedError(f"{keys.name('expert_gating_func')} is {stated}, known are {list(_GATINGS)}")
    n_group = keys.integer("expert_group_count", 1, minimum=0) or 1
    n_group_used = keys.integer("expert_group_used_count", 1 if n_group == 1 else None)
    if hp.n_expert % n_group or n_group_used > n_group:
        raise ModelError(
            f"{keys.name('expert_group_count')} is {n_group}, of which {n_group_used} are used, expected a "
            f"divisor of expert_count, {hp.n_expert}, and no more of them"
        )
    normalize = keys.flag("expert_weights_norm", normalize)
    scale = keys.number("expert_weights_scale", 1.0, positive=False) or 1.0

    def choice(layer: Layer, x: Array) -> tuple[Array, Array]:
        bias = "bias" in layer.w.exp_probs_b
        gating = _GATINGS[stated] if stated else SIGMOID if bias else SOFTMAX
        top = group_top or (2 if gating == SIGMOID else 1)
        return router(
            layer,
            x,
            gating=gating,
            normalize=normalize,
            bias=bias,
            n_group=n_group,
            n_group_used=n_group_used,
            group_top=min(top, hp.n_expert // n_group),
            scale=scale,
        )

    return choice


def experts(layer: Layer, x: Array, *, router: Router, gate: Gate = silu_gate) -> Array:
    """The feed-forward network once for each of the k experts that the router prefers, weighted: [T, n_embd].

    Raises:
        UnsupportedError: the file has one tensor per expert.
    """
    ids, weights = router(layer, x)
    return weighted_experts(layer, x, ids, weights, gate=gate)


def weighted_experts(layer: Layer, x: Array, ids: Array, weights: Array, *, gate: Gate = silu_gate) -> Array:
    """The networks of the experts `ids` [T, k], and the sum of what they give, weighted: [T, n_embd]."""
    g, w, hp = layer.g, layer.w, layer.hp
    n = hp.n_ff_expert
    if "0.weight" in w.ffn_gate:
        raise UnsupportedError(
            f"'{w.prefix}.ffn_gate.0.weight': files with one tensor per expert are not read"
        )
    if "weight" in w.ffn_gate_up_exps:  # one tensor holds the rows of both
        both = g.expert_linear(x, ids, w.ffn_gate_up_exps, hp.n_expert, 2 * n)  # [S, 2·n_ff], S = T·k
        gated, up = g.columns(both, 0, n), g.columns(both, n, n)
    else:
        gated = g.expert_linear(x, ids, w.ffn_gate_exps, hp.n_expert, n)  # [S, n_ff]
        up = g.expert_linear(x, ids, w.ffn_up_exps, hp.n_expert, n)
    down = g.expert_linear(gate(gated, up), ids, w.ffn_down_exps, hp.n_expert, hp.n_embd)  # [S, n_embd]
    return g.expert_sum(down, weights)


def plain_experts(layer: Layer, x: Array, *, router: Router, activation: Callable[[Array], Array]) -> Array:
    """`plain_feed_forward` once for each of the k experts that the router prefers, weighted: [T, n_embd]."""
    g, w, hp = layer.g, layer.w, layer.hp
    ids, weights = router(layer, x)
    up = activation(g.expert_linear(x, ids, w.ffn_up_exps, hp.n_expert, hp.n_ff_expert))  # [S, n_ff]
    return g.expert_sum(g.expert_linear(up, ids, w.ffn_down_exps, hp.n_expert, hp.n_embd), weights)


# ---- whole models -----------------------------------------------------------------------------------------


def decoder(
    keys: Keys,
    w: Checkpoint,
    block: Block,
    *,
    given: Figures | None = None,
    experts: bool = False,
    tied: bool = False,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
    cap: float = 0.0,
    dense: Callable[[Array], Array] | None = None,
    default: Output = _LOGITS,
) -> Graph:
    """The graph of a model that writes: the embedding, `block` for each layer, and the logits, or what else
    is wanted.

    Args:
        block: what a layer makes of the rows, residuals among it.
        given: the figures, where the family has read them already.
        experts: the feed-forward networks are experts.
        tied: the embedding is always the head; else it is where the file has no head.
        embedding_scale, logit_scale: what the first rows, and the logits, are times.
        cap: the logits are cap · tanh(logits / cap); 0: they stay.
        dense: what becomes of a text's vector, where that is wanted.
        default: what the model gives where nothing else is wanted; if it is not logits, it has none.
    """
    found = given or figures(keys, w, experts=experts)
    hp = found.all
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd, embedding_scale)  # [T, n_embd]
    tables = RopeTables(g)
    for each in filter(None, found.ropes):
        tables[each]  # before the first layer, which all plans share
    for i, (of_layer, rope) in enumerate(zip(found.layers, found.ropes, strict=True)):
        x = block(Layer(g, i, w.blk[i], of_layer, rope, tables), x)
    head = w.token_embd if tied or "weight" not in w.output else w.output
    if not tied:
        w.output.leave()  # vectors need none

    def logits(x: Array) -> Array:
        y = g.scale(g.linear(x, head, hp.n_vocab), logit_scale)  # [O, n_vocab]
        return g.tanh(y, cap) if cap else y

    def norm(x: Array) -> Array:
        if "bias" in w.output_norm:
            return g.layer_norm(x, w.output_norm, hp.norm_eps)
        return g.rms_norm(x, w.output_norm, hp.norm_eps)

    classify = classifier(g, w, g.tanh, hp.norm_eps)
    finish(
        g,
        keys,
        x,
        default=default,
        norm=norm,
        logits=logits if isinstance(default, Logits) else None,
        dense=dense or _same,
        classify=classify,
    )
    return g


def encoder(
    keys: Keys,
    w: Checkpoint,
    block: Block,
    *,
    given: Figures,
    positions: bool = False,
    norm: str = "",
    activation: Callable[[Graph], Callable[[Array], Array]] = lambda g: g.tanh,
    classified_by: Pooling = "cls",
) -> Graph:
    """The graph of a model that reads texts in both directions, and gives their vectors.

    Args:
        block: what a layer makes of the rows.
        given: the figures.
        positions: each position has a row of the table `position_embd`.
        norm: the name of the last one; "": the last block has done it.
        activation: between the two matrices of a classifier.
        classified_by: how the vector that it classifies is made, where the file does not say.
    """
    hp = given.all
    if keys.flag("attention.causal", False):
        raise UnsupportedError(f"{keys.name('attention.causal')} is true, only false is implemented")
    g = Graph(hp)
    x = g.embed(w.token_embd, hp.n_vocab, hp.n_embd)  # [T, n_embd]
    if "weight" in w.token_types:
        n_types = w.token_types.n_rows()
        keys.check_token_types(n_types)
        x = g.add_vector(x, w.token_types.first_row(n_types, hp.n_embd))  # all tokens are of the first type
    if positions:
        n_positions = w.position_embd.n_rows()
        if keys.context is not None and keys.context > n_positions:
            raise ParameterError(
                f"context: found {keys.context}, expected at most {n_positions}: the tensor "
                f"'position_embd.weight' has a row for each position, {n_positions} altogether"
            )
        x = x + g.embed_positions(w.position_embd, n_positions, hp.n_embd)
    x = g.layer_norm(x, w.token_embd_norm, hp.norm_eps)
    tables = RopeTables(g)
    for i, (of_layer, rope) in enumerate(zip(given.layers, given.ropes, strict=True)):
        x = block(Layer(g, i, w.blk[i], of_layer, rope, tables), x)
    classify = classifier(g, w, activation(g), hp.norm_eps)

    def last(x: Array) -> Array:
        return g.layer_norm(x, w[norm], hp.norm_eps) if norm else x

    finish(g, keys, x, default=Pooled("mean"), norm=last, classify=classify, classified_by=classified_by)
    return g


def _same(x: Array) -> Array:
    return x
