"""What a sequence keeps from one run to the next, as a plan declares it: one of several kinds of state.

An operation names the state that it uses by its number in the plan's list. What a kind holds is native memory
or arrays of an interpreter; here it is a shape. A new kind is a class here and in the union `State`: the type
checker then names every place that must know it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from clarion.plan.cache import CacheFormats


@dataclass(frozen=True, slots=True)
class Paged:
    """Keys and values of every position, in pages: for each of `n_head` heads a key of dim_k elements and a
    value of dim_v."""

    n_head: int
    dim_k: int
    dim_v: int


State = Paged


def position_bytes(state: State, formats: CacheFormats) -> int:
    """Bytes that each position of a sequence adds to a state."""
    match state:
        case Paged(n_head, dim_k, dim_v):
            return n_head * formats.position_bytes(dim_k, dim_v)
        case _:
            assert_never(state)


def describe(state: State) -> str:
    """The state in words, for a printed plan."""
    match state:
        case Paged(n_head, dim_k, dim_v):
            return f"paged, {n_head} heads with keys of {dim_k} and values of {dim_v}"
        case _:
            assert_never(state)


def paged_layers(states: Iterable[State]) -> list[tuple[int, int, int]]:
    """(n_head, dim_k, dim_v) of each state, as the native cache takes its layers."""
    layers = []
    for state in states:
        match state:
            case Paged(n_head, dim_k, dim_v):
                layers.append((n_head, dim_k, dim_v))
            case _:
                assert_never(state)
    return layers
