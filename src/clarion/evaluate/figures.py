"""Perplexity, and how far one distribution of tokens is from another."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Rows scored at once: 256 KB of float32 stay in a second-level cache (1 MB and more where AVX2 is) while the
# passes over them go by, with as much again for their exponentials.
_BLOCK_ELEMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Scores:
    """What is kept of a chunk's logits, one number for each token [n].

    Attributes:
        surprise: -ln of the probability of the token that came; NaN where a logit of the row is not finite.
        divergence: the Kullback-Leibler divergence of the reference's distribution from this one, in nats.
        choice: the most probable token.
    """

    surprise: Doubles
    divergence: Doubles
    choice: Indices


def score(logits: Rows, targets: Indices, reference: Rows | None, threads: int = 1) -> Scores:
    """The scores of rows of logits [n, V]; without a reference the divergences are zero.

    Rows are scored one by one, so `threads` change nothing but the time. With a reference softmax and sums
    are float64; without one the exponentials are those of the logits' own type, summed in pairs.
    """
    n, width = logits.shape
    scores = Scores(np.empty(n), np.zeros(n), np.empty(n, np.int64))
    step = max(_BLOCK_ELEMENTS // width, 1)

    def block(begin: int) -> None:
        rows = slice(begin, min(begin + step, n))
        _score(scores, rows, logits[rows], targets[rows], None if reference is None else reference[rows])

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(block, range(0, n, step)):
            pass
    return scores


def _score(scores: Scores, rows: slice, logits: Rows, targets: Indices, reference: Rows | None) -> None:
    choice = logits.argmax(axis=1)
    every = np.arange(len(logits))
    greatest = logits[every, choice]
    scores.choice[rows] = choice
    with np.errstate(invalid="ignore"):  # of logits that are not finite
        x = logits - greatest[:, None]  # [rows, V]
        of_targets = x[every, targets].astype(np.float64)
        finite = np.isfinite(x).all(axis=1)
        sums = np.exp(x, out=x).sum(axis=1).astype(np.float64)
        scores.surprise[rows] = np.where(finite, np.log(sums) - of_targets, np.nan)
        if reference is not None:
            p, q = log_softmax(logits), log_softmax(reference)
            scores.divergence[rows] = np.maximum(np.einsum("tv,tv->t", np.exp(q), q - p), 0.0)


def log_softmax(rows: Rows) -> Doubles:
    """In float64 [n, V]."""
    x = rows.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


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
