"""What a sequence keeps from one run to the next, as a plan declares it: one of several kinds of state.

An operation names the state that it uses by its number in the plan's list. What a kind holds is native memory
or arrays of an interpreter; here it is a shape. A new kind is a class here and in the union `State`: the type
checker then names every place that must know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from clarion.plan.cache import CacheFormats


@dataclass(frozen=True, slots=True)
class Paged:
    """Keys and values of every position, in pages: for each of `n_head` heads a key of dim_k elements and a
    value of dim_v.

    window: operations read only the last so many positions; 0: all.
    """

    n_head: int
    dim_k: int
    dim_v: int
    window: int = 0


@dataclass(frozen=True, slots=True)
class Latent:
    """A row of `dim` elements for every position, in pages: the key of all heads, whose first dim_v elements
    are their value. [DeepSeek-AI, 2024, DeepSeek-V2]"""

    dim: int
    dim_v: int


@dataclass(frozen=True, slots=True)
class Recurrent:
    """`size` numbers of a sequence, which each token changes, in float32.

    log: numbers of a token from which the change that it made can be made again; the last tokens' are kept,
        so that they can be taken back.
    """

    size: int
    log: int


State = Paged | Latent | Recurrent


def describe(state: State) -> str:
    """The state in words, for a printed plan."""
    match state:
        case Paged(n_head, dim_k, dim_v, window):
            kept = f", the last {window} positions" if window else ""
            return f"paged, {n_head} heads with keys of {dim_k} and values of {dim_v}{kept}"
        case Latent(dim, dim_v):
            return f"paged, rows of {dim} whose first {dim_v} are values"
        case Recurrent(size, log):
            return f"recurrent, {size} numbers, {log} of each of the last tokens"
        case _:
            assert_never(state)


@dataclass(frozen=True, slots=True)
class PagedGroup:
    """States whose pages a sequence has together: page i of its table holds the positions from 64·i on, of
    all of them.

    Attributes:
        window: what all of them keep; 0: every position.
        states: their numbers in the plan.
        layers: of each (n_head, dim_k, dim_v); without values, dim_v is 0.
    """

    window: int
    states: tuple[int, ...]
    layers: tuple[tuple[int, int, int], ...]

    def position_bytes(self, formats: CacheFormats) -> int:
        """Bytes of one position in all of them."""
        return sum(n_head * formats.position_bytes(dim_k, dim_v) for n_head, dim_k, dim_v in self.layers)

    def kept(self, n: int) -> int:
        """How many of n positions are kept."""
        return min(n, self.window or n)


@dataclass(frozen=True, slots=True)
class RecurrentGroup:
    """The recurrent states, which a sequence has in its slot.

    layers: (size, log) of each.
    """

    states: tuple[int, ...]
    layers: tuple[tuple[int, int], ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the states of one sequence, without what is kept to take tokens back."""
        return 4 * sum(size for size, _ in self.layers)


Group = PagedGroup | RecurrentGroup


def groups(states: Sequence[State]) -> tuple[Group, ...]:
    """The states, those together that a sequence gets and gives back together: what keeps every position,
    then each width of a window, then what is recurrent."""
    paged: dict[int, list[tuple[int, tuple[int, int, int]]]] = {}
    recurrent: list[tuple[int, tuple[int, int]]] = []
    for number, state in enumerate(states):
        match state:
            case Paged(n_head, dim_k, dim_v, window):
                paged.setdefault(window, []).append((number, (n_head, dim_k, dim_v)))
            case Latent(dim):
                paged.setdefault(0, []).append((number, (1, dim, 0)))
            case Recurrent(size, log):
                recurrent.append((number, (size, log)))
            case _:
                assert_never(state)
    found: list[Group] = [PagedGroup(window, *_columns(members)) for window, members in sorted(paged.items())]
    if recurrent:
        found.append(RecurrentGroup(*_columns(recurrent)))
    return tuple(found)


def places(states: Sequence[State]) -> list[tuple[int, int]]:
    """Where each state lies: the number of its group, and its layer there."""
    found = {
        number: (g, layer)
        for g, group in enumerate(groups(states))
        for layer, number in enumerate(group.states)
    }
    return [found[number] for number in range(len(states))]


T = TypeVar("T")


def _columns(members: Sequence[tuple[int, T]]) -> tuple[tuple[int, ...], tuple[T, ...]]:
    return tuple(number for number, _ in members), tuple(layer for _, layer in members)
