"""The figures of a model and of each of its layers, as a file states them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clarion.errors import ModelError
from clarion.models.keys import Keys
from clarion.models.rope import Rope, frequency_factors, rope, window_rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.hyperparameters import Hyperparameters

# Far above any model, far below what would exhaust memory before the tensors' shapes are compared.
_MAX_HEAD_DIM = 1 << 16
_MAX_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class Windows:
    """Which layers look back over the window alone, and how these rotate, where a file does not say.

    Attributes:
        period: every so many-th layer looks back over everything; 1: all do, 0: none.
        scaled: layers with a window rotate as the others do; else without scaling, with a base of their own.
        base: that base; 0: the others'.
        size: positions that the window holds; 0: all look back over everything.
    """

    period: int
    scaled: bool = True
    base: float = 0.0
    size: int = 0

    def flags(self, n_layer: int) -> list[bool]:
        """Of each layer whether it has the window."""
        return [self.period == 0 or i % self.period < self.period - 1 for i in range(n_layer)]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a file states.

    Attributes:
        all: the model's figures; where layers differ, those of the first that has any.
        layers: each layer's own: heads, their sizes, the width of the feed-forward network, the window.
        ropes: how each layer rotates; None: it does not.
    """

    all: Hyperparameters
    layers: tuple[Hyperparameters, ...]
    ropes: tuple[Rope | None, ...]


def figures(
    keys: Keys,
    w: Checkpoint,
    *,
    experts: bool = False,
    norm: str = "attention.layer_norm_rms_epsilon",
    raises_scores: bool = False,
    windows: Windows | None = None,
    yarn_truncates: bool = True,
    attends: bool = True,
) -> Figures:
    """The figures that a model states, checked against each other.

    Args:
        attends: layers have attention; else the number of heads that the file states must be 0.
        experts: the feed-forward networks are experts (`blocks.experts`).
        norm: the key of the number that norms add to the variance.
        windows: which layers have the window; None: all.
        yarn_truncates, raises_scores: as of `rope`.

    Raises:
        ModelError: a figure is missing, out of range, or contradicts another.
    """
    n_embd = keys.integer("embedding_length")
    n_block = keys.integer("block_count")
    if n_block > _MAX_LAYERS:
        raise ModelError(f"{keys.name('block_count')} is {n_block}, expected at most {_MAX_LAYERS}")
    n_layer = n_block - _n_predicting(keys, w, n_block)
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
    if not attends and first:
        raise ModelError(f"{keys.name('attention.head_count')} is {first}, expected 0")
    if attends and "attention.key_length" not in keys and (not first or n_embd % first):
        raise ModelError(
            f"{keys.name('embedding_length')} is {n_embd}, expected a multiple of "
            f"attention.head_count, {first}, or a key attention.key_length"
        )
    head_dim = dim_v = n_rot = 0
    if attends:
        head_dim, dim_v, n_rot = _sizes(keys, "", (n_embd // max(first, 1), None, None))
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
    rotation = None
    if attends:
        factors = frequency_factors(keys, w, n_rot, context_length)
        rotation = rope(
            keys, n_rot, context_length, factors, yarn_truncates=yarn_truncates, raises_scores=raises_scores
        )
    scale = keys.number("attention.scale", 0.0, positive=False)
    window = keys.integer("attention.sliding_window", windows.size if windows else 0, minimum=0)
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
        attention_scale=scale or max(head_dim, 1) ** -0.5,
        window=window,
        n_expert=n_expert,
        n_expert_used=n_expert_used,
        n_ff_expert=n_ff_expert,
        rope=rotation.description if rotation else "",
        n_parameters=w.n_elements(),
    )
    layers = [replace(hp, n_head=n_head[i], n_head_kv=n_head_kv[i], n_ff=n_ff[i]) for i in range(n_layer)]
    ropes = [rotation] * n_layer
    if windows is not None and rotation is not None:
        windowed = keys.flags("attention.sliding_window_pattern", n_layer, windows.flags(n_layer))
        head_dim, dim_v, n_rot = _sizes(keys, "_swa", (head_dim, dim_v, n_rot))
        rotation = window_rope(keys, n_rot, rotation, base=windows.base, scaled=windows.scaled)
        for i in range(n_layer):
            if windowed[i] and window:
                layers[i] = replace(
                    layers[i],
                    head_dim=head_dim,
                    dim_v=dim_v,
                    n_rot=n_rot,
                    attention_scale=scale or head_dim**-0.5,
                )
                ropes[i] = rotation
            else:
                layers[i] = replace(layers[i], window=0)
    return Figures(hp, tuple(layers), tuple(ropes))


def shared_layers(keys: Keys, found: Figures) -> dict[int, int]:
    """The layers that read keys and values of an earlier one, and which: of the last layer before them all
    that has as long a window.

    Raises:
        ModelError: there is none.
    """
    n, n_layer = keys.integer("attention.shared_kv_layers", 0, minimum=0), found.all.n_layer
    last = {hp.window: i for i, hp in enumerate(found.layers[: max(n_layer - n, 0)])}
    readers = range(max(n_layer - n, 0), n_layer)
    if any(found.layers[i].window not in last for i in readers):
        name = keys.name("attention.shared_kv_layers")
        raise ModelError(f"{name} is {n}, expected a layer with as long a window before these, of {n_layer}")
    return {i: last[found.layers[i].window] for i in readers}


def _sizes(keys: Keys, suffix: str, default: tuple[int, int | None, int | None]) -> tuple[int, int, int]:
    """Elements of a head of keys, of one of values, and of those that are rotated."""
    head_dim = keys.integer(f"attention.key_length{suffix}", default[0])
    dim_v = keys.integer(f"attention.value_length{suffix}", default[1] or head_dim)
    n_rot = keys.integer(f"rope.dimension_count{suffix}", default[2] or head_dim)
    if max(head_dim, dim_v) > _MAX_HEAD_DIM or n_rot > head_dim or n_rot % 2:
        raise ModelError(
            f"{keys.name(f'rope.dimension_count{suffix}')} is {n_rot}, "
            f"expected an even number up to the head size, {head_dim} (at most {_MAX_HEAD_DIM})"
        )
    return head_dim, dim_v, n_rot


def _n_predicting(keys: Keys, w: Checkpoint, n_block: int) -> int:
    """How many of the last layers only predict tokens further ahead; they are left unread."""
    n = keys.integer("nextn_predict_layers", 0, minimum=0)
    if n >= n_block:
        name = keys.name("nextn_predict_layers")
        raise ModelError(f"{name} is {n}, expected less than block_count, {n_block}")
    for i in range(n_block - n, n_block):
        w.blk[i].leave()
    return n


def _n_vocab(keys: Keys, w: Checkpoint) -> int:
    """The height of the embedding, which the vocabulary must agree with."""
    n_vocab = w.token_embd.n_rows()
    stated = {"vocab_size": keys.integer("vocab_size", n_vocab), "tokenizer.ggml.tokens": keys.n_tokens()}
    for source, n in stated.items():
        if n is not None and n != n_vocab:
            raise ModelError(f"{source} counts {n} tokens, tensor 'token_embd.weight' holds {n_vocab}")
    return n_vocab
