"""Perplexity, and how far one distribution of tokens is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion._native import sampling

LogitRows = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """What is kept of logits, one number for each row [n].

    Attributes:
        surprise: -ln of the probability of the token that came; NaN where a logit of the row is not finite.
        divergence: the Kullback-Leibler divergence of the reference's distribution from this one, in nats.
        choice: the most probable token; -1 where a logit of the row is not finite.
    """

    surprise: Doubles
    divergence: Doubles
    choice: Indices

    @classmethod
    def empty(cls, n: int) -> Scores:
        return cls(np.empty(n), np.empty(n), np.empty(n, np.int64))

    def part(self, rows: slice) -> Scores:
        """A view of some of them."""
        return Scores(self.surprise[rows], self.divergence[rows], self.choice[rows])


def score(
    logits: LogitRows,
    targets: Indices,
    reference: LogitRows | None,
    threads: int = 1,
    out: Scores | None = None,
) -> Scores:
    """The scores of rows of logits [n, V]; without a reference the divergences are zero.

    Rows are scored one by one, so `threads` change nothing but the time. Float32 logits without a reference
    are weighed in float32 and summed in float64; all else is float64.

    Raises:
        ValueError: sizes do not fit, or a target is no token.
    """
    scores = Scores.empty(len(logits)) if out is None else out
    sampling.score(logits, targets, reference, threads, scores.surprise, scores.divergence, scores.choice)
    return scores


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean surprise, and its standard error as llama.cpp computes it."""

    value: float
    error: float

    @classmethod
    def of(cls, surprise: Doubles) -> Perplexity:
        mean = float(surprise.mean())
        value = math.exp(mean) if mean < 700 else math.inf
        variance = float((surprise * surprise).mean()) - mean * mean
        error = math.sqrt(variance / (len(surprise) - 1)) if len(surprise) > 1 and variance > 0 else 0.0
        return cls(value, value * error)


@dataclass(frozen=True, slots=True)
class Divergence:
    """The divergences of all tokens, in nats."""

    mean: float
    median: float
    p99: float
    p999: float
    greatest: float

    @classmethod
    def of(cls, divergence: Doubles) -> Divergence:
        median, p99, p999 = np.quantile(divergence, (0.5, 0.99, 0.999))
        return cls(float(divergence.mean()), float(median), float(p99), float(p999), float(divergence.max()))
