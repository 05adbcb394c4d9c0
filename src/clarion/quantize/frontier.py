"""Which format for which matrix: the least cost for a size, where costs and sizes add up.

Each matrix offers choices of so many bytes at such a cost. Only the lower convex hull of them matters to a
Lagrangian: for any price of a byte, the best mixture takes the best choice of each matrix on its own. All these
mixtures together are one path, from every matrix at its smallest, taking the steps of all hulls in the order
of what a byte gains. Every mixture on it is the best of its size. Between two of them, what is left of a
budget goes to the next steps that fit.

Shoham and Gersho, 1988, Efficient bit allocation for an arbitrary set of quantizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clarion.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Choice:
    """One way of storing a matrix."""

    format: str
    n_bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class Step:
    """One matrix moves to its next larger choice."""

    matrix: int
    choice: Choice


@dataclass(frozen=True, slots=True)
class Point:
    """A mixture on the frontier: all steps up to this one are taken."""

    n_bytes: int
    cost: float


def hull(choices: Sequence[Choice]) -> list[Choice]:
    """The lower convex hull, smallest first: each gains less for a byte than the one before."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.n_bytes, choice.cost)):
        if kept and choice.cost >= kept[-1].cost:
            continue
        while len(kept) > 1 and _gain(kept[-2], choice) >= _gain(kept[-2], kept[-1]):
            kept.pop()
        kept.append(choice)
    return kept


def _gain(a: Choice, b: Choice) -> float:
    """Cost saved for each byte more."""
    return (a.cost - b.cost) / (b.n_bytes - a.n_bytes)


class Frontier:
    """The path of the best mixtures.

    Attributes:
        start: each matrix at its smallest.
        steps: in the order of what a byte gains.
        points: the mixtures' sizes and costs: the start, then after each step.
    """

    def __init__(self, matrices: Sequence[Sequence[Choice]]) -> None:
        """`matrices`: the choices of each, at least one."""
        hulls = [hull(choices) for choices in matrices]
        self.start = [choices[0] for choices in hulls]
        gains = [
            (-_gain(before, after), i, after)
            for i, choices in enumerate(hulls)
            for before, after in zip(choices, choices[1:], strict=False)
        ]
        gains.sort(key=lambda entry: entry[0])
        self.steps = [Step(i, choice) for _, i, choice in gains]
        chosen = list(self.start)
        self.points = [_point(chosen)]
        for step in self.steps:
            chosen[step.matrix] = step.choice
            self.points.append(_point(chosen))

    def within(self, n_bytes: int) -> list[Choice]:
        """The choice of each matrix, all together in at most so many bytes.

        Raises:
            ParameterError: even the smallest mixture is larger.
        """
        least = self.points[0].n_bytes
        if n_bytes < least:
            raise ParameterError(f"a budget of {n_bytes} bytes is less than the smallest mixture, {least}")
        chosen, left = list(self.start), n_bytes - least
        stuck: set[int] = set()  # a matrix that missed a step takes none after it
        for step in self.steps:
            more = step.choice.n_bytes - chosen[step.matrix].n_bytes
            if step.matrix in stuck or more > left:
                stuck.add(step.matrix)
                continue
            chosen[step.matrix] = step.choice
            left -= more
        return chosen


def _point(chosen: Sequence[Choice]) -> Point:
    return Point(sum(choice.n_bytes for choice in chosen), sum(choice.cost for choice in chosen))
