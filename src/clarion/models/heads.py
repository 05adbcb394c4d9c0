"""What models give for the rows of their last layer: logits, vectors of texts, or scores of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from clarion.errors import UnsupportedError
from clarion.models.keys import Keys, shown
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph
from clarion.plan.output import HiddenRows, Logits, Output, Pooled, Pooling, Ranks

Step = Callable[[Array], Array]  # from rows to rows

# The numbers of the key pooling_type.
_POOLING: dict[int, Pooling] = {1: "mean", 2: "cls", 3: "last"}
_NONE, _RANK = 0, 4


def output_of(keys: Keys, default: Output, classified_by: Pooling) -> Output:
    """What is wanted of the model: what the caller said, else the file, else the default.

    classified_by: how the vector is made that a classifier gets, where the file does not say.

    Raises:
        UnsupportedError: an unknown way to make one vector of several.
    """
    stated = keys.integer("pooling_type", _NONE, minimum=0)
    of_scores = keys.integer("classifier.pooling_type", _NONE, minimum=0)
    labels = keys.strings("classifier.output_labels")
    for key, value in (("pooling_type", stated), ("classifier.pooling_type", of_scores)):
        if value not in (_NONE, _RANK, *_POOLING):
            raise UnsupportedError(f"{keys.name(key)} is {shown(value)}, known are 0 to 4")
    ranks = Ranks(_POOLING.get(of_scores, classified_by))
    if keys.output is not None:
        return ranks if isinstance(keys.output, Ranks) else keys.output
    if stated == _RANK or (labels and stated == _NONE):
        return ranks
    return Pooled(_POOLING[stated]) if stated in _POOLING else default


def finish(
    g: Graph,
    keys: Keys,
    x: Array,
    *,
    default: Output,
    norm: Step = lambda x: x,
    logits: Step | None = None,
    dense: Step = lambda x: x,
    classify: Step | None = None,
    classified_by: Pooling = "last",
) -> None:
    """Makes what is wanted of the last layer's rows x [T, n_embd] the graph's output.

    Args:
        default: what the model gives where neither the caller nor the file says.
        norm: the last one, of rows.
        logits: of normalised rows; None: the model does not write.
        dense: what becomes of a text's pooled vector.
        classify: the scores of a text's pooled vector; None: the model has no classifier.
        classified_by: as for `output_of`.

    Raises:
        UnsupportedError: the model cannot give what is wanted.
    """
    kind = output_of(keys, default, classified_by)
    match kind:
        case Logits():
            if logits is None:
                raise UnsupportedError(
                    f"{keys.architecture} is an encoder: it has vectors, and writes no text"
                )
            g.output(logits(norm(g.select(x))), kind)
        case HiddenRows():
            g.output(norm(g.select(x)), kind)
        case Pooled(how):
            g.output(dense(_pooled(g, x, how, norm)), kind)
        case Ranks(how):
            if classify is None:
                raise UnsupportedError(
                    f"this file of {keys.architecture} has no classifier, which ranking needs"
                )
            g.output(classify(_pooled(g, x, how, norm)), kind)
        case _:
            assert_never(kind)


def _pooled(g: Graph, x: Array, how: Pooling, norm: Step) -> Array:
    """One row for each text: [O, n_embd]."""
    return g.mean_rows(norm(x)) if how == "mean" else norm(g.select(x))


def classifier(g: Graph, w: Checkpoint, activation: Step, norm_eps: float) -> Step | None:
    """What the tensors `cls`, `cls.norm` and `cls.output` make of a pooled row: scores. None where there are
    none; `cls` alone may be what a model was trained with to compare texts, and is left unread then."""
    has_scores = "weight" in w.cls.output
    if not has_scores and ("weight" not in w.cls or w.cls.n_rows() == g.hyperparameters.n_embd):
        w.cls.leave(kept=False)
        return None
    has_dense = "weight" in w.cls
    for tensor in (w.cls, w.cls.norm, w.cls.output):
        tensor.leave()

    def classify(x: Array) -> Array:
        if has_dense:
            x = g.linear(x, w.cls, w.cls.n_rows())
            x = activation(x) if has_scores else x
        if "weight" in w.cls.norm:
            x = g.layer_norm(x, w.cls.norm, norm_eps)
        return g.linear(x, w.cls.output, w.cls.output.n_rows()) if has_scores else x

    return classify
