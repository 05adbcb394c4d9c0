"""Perplexity, and how far one distribution of tokens is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]

_BLOCK_ELEMENTS = 1 << 20  # in float64 at once


@dataclass(frozen=True, slots=True)
class Scores:
    """What is kept of a chunk's logits, one number for each token [n].

    Attributes:
        surprise: -ln of the probability of the token that came.
        divergence: the Kullback-Leibler divergence of the reference's distribution from this one, in nats.
        choice: the most probable token.
    """

    surprise: Doubles
    divergence: Doubles
    choice: npt.NDArray[np.int64]


def score(logits: Rows, targets: npt.NDArray[np.int64], reference: Rows | None) -> Scores:
    """The scores of rows of logits [n, V]; without a reference the divergences are zero."""
    n, width = logits.shape
    surprise, divergence, choice = np.empty(n), np.zeros(n), np.empty(n, np.int64)
    step = max(_BLOCK_ELEMENTS // width, 1)
    for begin in range(0, n, step):
        rows = slice(begin, min(begin + step, n))
        block = logits[rows]  # [rows, V]
        choice[rows] = block.argmax(axis=1)
        greatest = block.max(axis=1)
        sums = np.exp(block - greatest[:, None]).sum(axis=1, dtype=np.float64)
        of_targets = block[np.arange(len(block)), targets[rows]].astype(np.float64)
        surprise[rows] = np.log(sums) - (of_targets - greatest)
        if reference is not None:
            p, q = log_softmax(block), log_softmax(reference[rows])
            divergence[rows] = np.maximum(np.einsum("tv,tv->t", np.exp(q), q - p), 0.0)
    return Scores(surprise, divergence, choice)


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
