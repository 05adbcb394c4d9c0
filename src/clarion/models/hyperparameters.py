"""The figures of a model and of each of its layers, as a file states them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clarion.errors import ModelError
from clarion.models.keys import Keys
from clarion.models.rope import Rope, rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.hyperparameters import Hyperparameters

# Far above any model, far below what would exhaust memory before the tensors' shapes are compared.
_MAX_HEAD_DIM = 1 << 16
_MAX_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class Figures:
    """What a file states.

    Attributes:
        all: the model's figures; where layers differ, those of the first that has any.
        layers: each layer's own: heads, their sizes, the width of the feed-forward network, the window.
        rope: how positions are rotated where no layer says otherwise.
    """

    all: Hyperparameters
    layers: tuple[Hyperparameters, ...]
    rope: Rope


def figures(
    keys: Keys,
    w: Checkpoint,
    *,
    experts: bool = False,
    norm: str = "attention.layer_norm_rms_epsilon",
    raises_scores: bool = False,
) -> Figures:
    """The figures that a transformer states, checked against each other.

    Args:
        experts: the feed-forward networks are experts (`blocks.experts`).
        norm: the key of the number that norms add to the variance.
        raises_scores: as of `rope`.

    Raises:
        ModelError: a figure is missing, out of range, or contradicts another.
    """
    n_embd = keys.integer("embedding_length")
    n_layer = _n_layer(keys, w)
    n_head = keys.integers("attention.head_count", n_layer)
    kv = keys.integers("attention.head_count_kv", n_layer, -1, minimum=-1)
    n_head_kv = tuple(q if k == -1 else k for q, k in zip(n_head, kv, strict=True))
    for q, k in zip(n_head, n_head_kv, strict=True):
        if q and k and q % k:
            raise ModelError(
                f"{keys.name('attention.head_count')} is {q}, "
                f"expected a multiple of attention.head_count_kv, {k}"
            )
    first = next((n for n in n_head if n), 0)
    if "attention.key_length" not in keys and (not first or n_embd % first):
        raise ModelError(
            f"{keys.name('embedding_length')} is {n_embd}, expected a multiple of "
            f"attention.head_count, {first}, or a key attention.key_length"
        )
    head_dim = keys.integer("attention.key_length", n_embd // max(first, 1))
    dim_v = keys.integer("attention.value_length", head_dim)
    n_rot = keys.integer("rope.dimension_count", head_dim)
    if max(head_dim, dim_v) > _MAX_HEAD_DIM or n_rot > head_dim or n_rot % 2:
        raise ModelError(
            f"{keys.name('rope.dimension_count')} is {n_rot}, "
            f"expected an even number up to the head size, {head_dim} (at most {_MAX_HEAD_DIM})"
        )
    n_vocab = _n_vocab(keys, w)
    n_ff = keys.integers(
        "feed_forward_length", n_layer, 1 if experts and "expert_feed_forward_length" in keys else None
    )
    n_expert = n_expert_used = n_ff_expert = 0
    if experts:
        n_ff_expert = keys.integer("expert_feed_forward_length", max(n_ff))
        n_expert = keys.integer("expert_count")
        n_expert_used = keys.integer("expert_used_count")
        if n_expert_used > n_expert:
            raise ModelError(
                f"{keys.name('expert_used_count')} is {n_expert_used}, "
                f"expected at most expert_count, {n_expert}"
            )
    context_length = keys.integer("context_length")
    rotation = rope(keys, n_rot, context_length, w.rope_freqs, raises_scores=raises_scores)
    hp = Hyperparameters(
        architecture=keys.architecture,
        context_length=context_length,
        n_layer=n_layer,
        n_embd=n_embd,
        n_vocab=n_vocab,
        n_head=first,
        n_head_kv=next((n for n in n_head_kv if n), 0),
        head_dim=head_dim,
        dim_v=dim_v,
        n_rot=n_rot,
        n_ff=next((n for n in n_ff if n), 0),
        norm_eps=keys.number(norm, positive=False),
        attention_scale=keys.number("attention.scale", 0.0, positive=False) or head_dim**-0.5,
        window=keys.integer("attention.sliding_window", 0, minimum=0),
        n_expert=n_expert,
        n_expert_used=n_expert_used,
        n_ff_expert=n_ff_expert,
        rope=rotation.description,
        n_parameters=w.n_elements(),
    )
    layers = tuple(
        replace(hp, n_head=n_head[i], n_head_kv=n_head_kv[i], n_ff=n_ff[i]) for i in range(n_layer)
    )
    return Figures(hp, layers, rotation)


def _n_layer(keys: Keys, w: Checkpoint) -> int:
    """The layers that text goes through. Those that files may have behind them predict further tokens; they
    are left unread."""
    n_layer = keys.integer("block_count")
    if n_layer > _MAX_LAYERS:
        raise ModelError(f"{keys.name('block_count')} is {n_layer}, expected at most {_MAX_LAYERS}")
    n_further = keys.integer("nextn_predict_layers", 0, minimum=0)
    if n_further >= n_layer:
        raise ModelError(
            f"{keys.name('nextn_predict_layers')} is {n_further}, expected less than block_count, {n_layer}"
        )
    for number in range(n_layer - n_further, n_layer):
        w.blk[number].leave()
    return n_layer - n_further


def _n_vocab(keys: Keys, w: Checkpoint) -> int:
    """The height of the embedding, which the vocabulary must agree with."""
    n_vocab = w.token_embd.n_rows()
    stated = {"vocab_size": keys.integer("vocab_size", n_vocab), "tokenizer.ggml.tokens": keys.n_tokens()}
    for source, n in stated.items():
        if n is not None and n != n_vocab:
            raise ModelError(f"{source} counts {n} tokens, tensor 'token_embd.weight' holds {n_vocab}")
    return n_vocab
