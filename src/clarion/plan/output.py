"""What a plan computes for its caller: one of several kinds of output, each the value of a name.

A new kind is a class here and in the union `Output`: the type checker then names every place that must know
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn, assert_never

from clarion.plan.ir import Value


@dataclass(frozen=True, slots=True)
class Logits:
    """A score for each token of the vocabulary, for each wanted output: [O, n_vocab]."""

    value: str = "logits"


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """A vector for each token or for each wanted output: [T, n] or [O, n]."""

    value: str = "hidden_rows"


Pooling = Literal["mean", "cls", "last"]
_POOLED = {"mean": "the mean of its rows", "cls": "its first row", "last": "its last row"}


@dataclass(frozen=True, slots=True)
class Pooled:
    """One vector for each text: [O, n].

    how: it is made of the mean of the text's rows, of its first or of its last one. The wanted output is the
        text's last token, but for `cls` its first.
    """

    how: Pooling
    value: str = "pooled"


@dataclass(frozen=True, slots=True)
class Ranks:
    """A score for each of a classifier's labels, for each text: [O, n]. `how` is as for `Pooled`."""

    how: Pooling
    value: str = "ranks"


Output = Logits | HiddenRows | Pooled | Ranks


def check(output: Output, value: Value, n_vocab: int, fail: Callable[[str], NoReturn]) -> None:
    """Calls `fail` with what is wrong, where the value has not the shape that the output states."""
    if value.kind != "f32" or value.slots_per_token != 1:
        fail(
            f"{value.name} is {value.kind} with {value.slots_per_token} rows for each of {value.rows}, "
            "expected f32 and one"
        )
    rows: tuple[str, ...]
    match output:
        case Logits():
            rows, width = ("outputs",), n_vocab
        case HiddenRows():
            rows, width = ("tokens", "outputs"), value.width
        case Pooled() | Ranks():
            rows, width = ("outputs",), value.width
        case _:
            assert_never(output)
    if value.rows not in rows or value.width != width:
        fail(
            f"{value.name} is [{value.rows}, {value.width}], expected [{' or '.join(rows)}, {width}] "
            f"of {describe(output)}"
        )


def describe(output: Output) -> str:
    """The output in words, for a printed plan."""
    match output:
        case Logits():
            return "logits"
        case HiddenRows():
            return "hidden rows"
        case Pooled(how):
            return f"vectors of texts, each {_POOLED[how]}"
        case Ranks(how):
            return f"scores of texts, each by {_POOLED[how]}"
        case _:
            assert_never(output)
