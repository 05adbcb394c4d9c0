"""EmbeddingGemma: Gemma 3 that reads in both directions, the mean of its rows, and two matrices behind that.

Schechter Vera et al., 2025, EmbeddingGemma. Files need not have the matrices.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.errors import ModelError, UnsupportedError
from clarion.models.blocks import Layer, decoder
from clarion.models.family import Family
from clarion.models.gemma2 import sandwich
from clarion.models.gemma3 import GEMMA3, WINDOWS
from clarion.models.hyperparameters import figures
from clarion.models.keys import Keys
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph
from clarion.plan.output import Pooled

_HEADS = ("dense_2", "dense_3")


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    if keys.flag("attention.causal", False):
        raise UnsupportedError(f"{keys.name('attention.causal')} is true, only false is implemented")
    found = figures(keys, w, windows=WINDOWS)

    def block(layer: Layer, x: Array) -> Array:
        # A window of w counts w / 2 positions on each side.
        width = layer.hp.window // 2 + 1 if layer.hp.window else 0
        layer = replace(layer, hp=replace(layer.hp, window=width))
        return sandwich(layer, x, head_norm=True, causal=False)

    sizes = _sizes(keys, w, found.all.n_embd)

    def dense(x: Array) -> Array:
        for name, size in zip(_HEADS, sizes, strict=True):
            x = x.graph.linear(x, w[name], size) if size else x
        return x

    graph = decoder(
        keys,
        w,
        block,
        given=found,
        default=Pooled("mean"),
        embedding_scale=found.all.n_embd**0.5,
        dense=dense,
    )
    for name in _HEADS:
        w[name].leave()  # rows need none
    return graph


def _sizes(keys: Keys, w: Checkpoint, n: int) -> list[int]:
    """Rows of the matrices behind the mean of n elements; 0 where there is none."""
    sizes = []
    for name in _HEADS:
        rows = w[name].n_rows() if "weight" in w[name] else 0
        for key, wanted in ((f"{name}_feat_in", n), (f"{name}_feat_out", rows)) if rows else ():
            found = keys.integer(key, wanted)
            if found != wanted:
                raise ModelError(f"{keys.name(key)} is {found}, expected {wanted}")
        sizes.append(rows)
        n = rows or n
    return sizes


# The folders of the matrices are modules of Sentence Transformers.
_EMBEDDING = replace(
    GEMMA3,
    architecture="Gemma3TextModel",
    roots=("model.", ""),
    tensors={**GEMMA3.tensors, "dense_2": "2_Dense.linear", "dense_3": "3_Dense.linear"},
    only={**GEMMA3.only, "use_bidirectional_attention": (True,)},
)
FAMILY = Family("gemma-embedding", build, (_EMBEDDING,))
