"""The figures of a decoder, as a file states them."""

from __future__ import annotations

from clarion.errors import ModelError, UnsupportedError
from clarion.models.keys import Keys
from clarion.models.rope import Rope, rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.hyperparameters import Hyperparameters

# Far above any model, far below what would exhaust memory before the tensors' shapes are compared.
_MAX_HEAD_DIM = 1 << 16


def hyperparameters(keys: Keys, w: Checkpoint, *, experts: bool = False) -> tuple[Hyperparameters, Rope]:
    """The figures that every decoder states, and its rotation, checked against each other.

    Args:
        experts: the feed-forward networks are experts (`blocks.experts`).

    Raises:
        ModelError: a figure is missing, out of range, or contradicts another.
        UnsupportedError: keys and values of different lengths.
    """
    n_embd = keys.integer("embedding_length")
    n_head = keys.integer("attention.head_count")
    n_head_kv = keys.integer("attention.head_count_kv", n_head)
    if n_head % n_head_kv:
        raise ModelError(
            f"{keys.name('attention.head_count')} is {n_head}, "
            f"expected a multiple of attention.head_count_kv, {n_head_kv}"
        )
    if "attention.key_length" not in keys and n_embd % n_head:
        raise ModelError(
            f"{keys.name('embedding_length')} is {n_embd}, expected a multiple of "
            f"attention.head_count, {n_head}, or a key attention.key_length"
        )
    head_dim = keys.integer("attention.key_length", n_embd // n_head)
    value_length = keys.integer("attention.value_length", head_dim)
    if value_length != head_dim:
        raise UnsupportedError(
            f"{keys.name('attention.value_length')} = {value_length} differs from the key length, {head_dim}"
        )
    n_rot = keys.integer("rope.dimension_count", head_dim)
    if head_dim > _MAX_HEAD_DIM or n_rot > head_dim or n_rot % 2:
        raise ModelError(
            f"{keys.name('rope.dimension_count')} is {n_rot}, "
            f"expected an even number up to the head size, {head_dim} (at most {_MAX_HEAD_DIM})"
        )
    n_vocab = w.token_embd.n_rows()
    stated = {"vocab_size": keys.integer("vocab_size", n_vocab), "tokenizer.ggml.tokens": keys.n_tokens()}
    for source, n in stated.items():
        if n is not None and n != n_vocab:
            raise ModelError(f"{source} counts {n} tokens, tensor 'token_embd.weight' holds {n_vocab}")

    n_ff = keys.integer(
        "feed_forward_length", 1 if experts and "expert_feed_forward_length" in keys else None
    )
    n_expert = n_expert_used = 0
    if experts:
        n_ff = keys.integer("expert_feed_forward_length", n_ff)
        n_expert = keys.integer("expert_count")
        n_expert_used = keys.integer("expert_used_count")
        if n_expert_used > n_expert:
            raise ModelError(
                f"{keys.name('expert_used_count')} is {n_expert_used}, "
                f"expected at most expert_count, {n_expert}"
            )
    context_length = keys.integer("context_length")
    rotation = rope(keys, n_rot, context_length, w.rope_freqs)
    hp = Hyperparameters(
        architecture=keys.architecture,
        context_length=context_length,
        n_layer=keys.integer("block_count"),
        n_embd=n_embd,
        n_vocab=n_vocab,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        n_rot=n_rot,
        n_ff=n_ff,
        norm_eps=keys.number("attention.layer_norm_rms_epsilon", positive=False),
        attention_scale=keys.number("attention.scale", 0.0, positive=False) or head_dim**-0.5,
        window=keys.integer("attention.sliding_window", 0, minimum=0),
        n_expert=n_expert,
        n_expert_used=n_expert_used,
        rope=rotation.description,
        n_parameters=w.n_elements(),
    )
    return hp, rotation
