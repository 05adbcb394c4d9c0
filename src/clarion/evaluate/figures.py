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

# Logits that a thread scores at once. Beside a reference that takes three blocks of float64, 768 KB, of a
# second-level cache (1 MB and more where AVX-512 is). Half as many cost a tenth more in calls of numpy.
_BLOCK_ELEMENTS = 1 << 15


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

    Rows are scored one by one, so `threads` change nothing but the time. With a reference all is computed in
    float64; without one the exponentials are those of the logits' own type, summed in pairs.
    """
    n, width = logits.shape
    scores = Scores(np.empty(n), np.zeros(n), np.empty(n, np.int64))
    step = max(_BLOCK_ELEMENTS // width, 1)

    def share(first: int) -> None:
        # Its own memory for all that it computes: new arrays for each block would be new pages each time.
        spaces = np.empty((3, _BLOCK_ELEMENTS))
        for begin in range(first * step, n, threads * step):
            rows = slice(begin, begin + step)
            of_reference = None if reference is None else reference[rows]
            _score(scores, rows, logits[rows], targets[rows], of_reference, spaces)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(share, range(threads)):
            pass
    return scores


def _score(
    scores: Scores, rows: slice, logits: Rows, targets: Indices, reference: Rows | None, spaces: Doubles
) -> None:
    every = np.arange(len(logits))
    choice = logits.argmax(axis=1)
    greatest = logits[every, choice]
    scores.choice[rows] = choice
    with np.errstate(invalid="ignore"):  # of logits that are not finite
        finite = np.isfinite(greatest) & np.isfinite(logits.min(axis=1))
        if reference is None:
            total = _exp_sums(logits, greatest, spaces[0].view(logits.dtype))
        else:
            total, divergence = _compare(logits, greatest, reference, spaces)
            scores.divergence[rows] = np.maximum(divergence, 0.0)
        of_targets = logits[every, targets].astype(np.float64) - greatest
        scores.surprise[rows] = np.where(finite, np.log(total) - of_targets, np.nan)


def _exp_sums(logits: Rows, greatest: Rows, space: Rows) -> Doubles:
    """Sums of exp(logit - greatest) [rows]."""
    total = np.zeros(len(logits))
    for columns in _panels(logits):
        panel = logits[:, columns]
        x = np.subtract(panel, greatest[:, None], out=_shaped(space, panel))
        total += np.exp(x, out=x).sum(axis=1)
    return total


def _compare(logits: Rows, greatest: Rows, reference: Rows, spaces: Doubles) -> tuple[Doubles, Doubles]:
    """The same in float64, and the divergences from the reference [rows].

    With x and y the logits less their greatest, P and Q the sums of their exponentials:
    sum e^y / Q (ln(e^y / Q) - ln(e^x / P)) = (sum e^y (y - x)) / Q - ln Q + ln P.
    """
    p_sum, q_sum, apart_sum = np.zeros((3, len(logits)))
    top = reference.max(axis=1)
    for columns in _panels(logits):
        panel = logits[:, columns]
        x, y, apart = (_shaped(space, panel) for space in spaces)
        np.subtract(panel, greatest[:, None], out=x, dtype=np.float64)
        np.subtract(reference[:, columns], top[:, None], out=y, dtype=np.float64)
        np.subtract(y, x, out=apart)
        p_sum += np.exp(x, out=x).sum(axis=1)
        q_sum += np.exp(y, out=y).sum(axis=1)
        apart_sum += np.einsum("tv,tv->t", y, apart)
    return p_sum, apart_sum / q_sum - np.log(q_sum) + np.log(p_sum)


def _panels(logits: Rows) -> list[slice]:
    """Columns to be taken at once; numpy ends the last slice where the columns end."""
    return [slice(begin, begin + _BLOCK_ELEMENTS) for begin in range(0, logits.shape[1], _BLOCK_ELEMENTS)]


def _shaped(space: Rows, panel: Rows) -> Rows:
    return space[: panel.size].reshape(panel.shape)


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
