"""Which format for which matrix: the least cost for a size, where costs and sizes add up.

Each matrix can be stored in so many bytes at such a cost: its offers. Only the lower convex hull of them
matters to a Lagrangian: for any price of a byte, the best mixture takes the best of each matrix on its own.
All these mixtures together are one path, from every matrix at its smallest, taking the steps of all hulls in
the order of what a byte gains. Every mixture on it is the best of its size. Between two of them, what is left
of a budget goes to the next steps that fit.

Shoham and Gersho, 1988, Efficient bit allocation for an arbitrary set of quantizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from clarion.errors import ParameterError


@dataclass(frozen=True, slots=True)
class Offer:
    """One way of storing a matrix."""

    format: str
    n_bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class Step:
    """One matrix moves to its next larger offer."""

    matrix: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Point:
    """A mixture on the frontier: all steps up to this one are taken."""

    n_bytes: int
    cost: float


def hull(offers: Sequence[Offer]) -> list[Offer]:
    """The lower convex hull, smallest first: each gains less for a byte than the one before."""
    kept: list[Offer] = []
    for offer in sorted(offers, key=lambda offer: (offer.n_bytes, offer.cost)):
        if kept and offer.cost >= kept[-1].cost:
            continue
        while len(kept) > 1 and _gain(kept[-2], offer) >= _gain(kept[-2], kept[-1]):
            kept.pop()
        kept.append(offer)
    return kept


def _gain(a: Offer, b: Offer) -> float:
    """Cost saved for each byte more."""
    return (a.cost - b.cost) / (b.n_bytes - a.n_bytes)


class Frontier:
    """The path of the best mixtures.

    Attributes:
        start: each matrix at its smallest.
        steps: in the order of what a byte gains.
        points: the mixtures' sizes and costs: the start, then after each step.
    """

    def __init__(self, matrices: Sequence[Sequence[Offer]]) -> None:
        """`matrices`: the offers of each, at least one."""
        hulls = [hull(offers) for offers in matrices]
        self.start = [offers[0] for offers in hulls]
        gains = [
            (-_gain(before, after), i, after)
            for i, offers in enumerate(hulls)
            for before, after in pairwise(offers)
        ]
        gains.sort(key=lambda entry: entry[0])
        self.steps = [Step(i, offer) for _, i, offer in gains]
        chosen = list(self.start)
        self.points = [_point(chosen)]
        for step in self.steps:
            chosen[step.matrix] = step.offer
            self.points.append(_point(chosen))

    def within(self, n_bytes: int) -> list[Offer]:
        """The offer of each matrix, all together in at most so many bytes.

        Raises:
            ParameterError: even the smallest mixture is larger.
        """
        least = self.points[0].n_bytes
        if n_bytes < least:
            raise ParameterError(f"a budget of {n_bytes} bytes is less than the smallest mixture, {least}")
        chosen, left = list(self.start), n_bytes - least
        stuck: set[int] = set()  # a matrix that missed a step takes none after it
        for step in self.steps:
            more = step.offer.n_bytes - chosen[step.matrix].n_bytes
            if step.matrix in stuck or more > left:
                stuck.add(step.matrix)
                continue
            chosen[step.matrix] = step.offer
            left -= more
        return chosen


def _point(chosen: Sequence[Offer]) -> Point:
    return Point(sum(offer.n_bytes for offer in chosen), sum(offer.cost for offer in chosen))
