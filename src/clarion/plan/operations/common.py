"""What definitions of the operation table share: the batch that they compute, and functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Array = Any
Floats = tuple[float, ...]


class Batch(Protocol):
    """The tokens that a run computes, and the state that it continues.

    Attributes:
        tokens, positions, sequences: [T], ids, positions in their sequences, and which sequences these are.
        outputs: [O], the tokens whose rows are wanted.
        states: those of the plan, by number.
    """

    @property
    def tokens(self) -> Array: ...
    @property
    def positions(self) -> Array: ...
    @property
    def sequences(self) -> Array: ...
    @property
    def outputs(self) -> Array: ...
    @property
    def states(self) -> Sequence[Any]: ...


class PagedArrays(Protocol):
    """What `Batch.states` holds for a state of the kind `Paged`."""

    def write(self, k: Array, v: Array) -> None:
        """Puts keys and values [T, n_head·dim] at the tokens' positions."""

    def read(self) -> tuple[Array, Array, Array, Array]:
        """Keys [P, n_head, dim_k] and values [P, n_head, dim_v] of P positions; [T, P] by how many positions
        each lies before a token; [T, P] whether it is of the token's own sequence."""


class LatentArrays(Protocol):
    """What `Batch.states` holds for a state of the kind `Latent`."""

    def write(self, rows: Array) -> None:
        """Puts rows [T, dim] at the tokens' positions."""

    def read(self) -> tuple[Array, Array, Array]:
        """Rows [P, dim] of P positions; the distances and whose they are, as `PagedArrays.read`."""


class RecurrentArrays(Protocol):
    """What `Batch.states` holds for a state of the kind `Recurrent`."""

    def scan(
        self, xp: Any, n_tokens: int, zero: Array, step: Callable[[Array, int], tuple[Array, Array]]
    ) -> Array:
        """The results of `step(state, t) -> (state, result)`, [T, ..], for each token of the batch in order,
        each with the state of its own sequence, which is `zero` at position 0."""


def normalized(xp: Any, x: Array, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps), over the last axis."""
    return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)


def softmax(xp: Any, x: Array) -> Array:
    """exp(x) / sum(exp(x)), over the last axis."""
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(xp: Any, x: Array) -> Array:
    """1 / (1 + exp(-x)), without a number beyond the range."""
    return xp.exp(xp.clip(x, None, 0)) / (1 + xp.exp(-xp.abs(x)))


def log_of_one_and_exp(xp: Any, x: Array) -> Array:
    """ln(1 + exp(x)), without a number beyond the range."""
    return xp.clip(x, 0, None) + xp.log1p(xp.exp(-xp.abs(x)))


def normal_distribution(xp: Any, x: Array) -> Array:
    """The part of a standard normal distribution that lies below x, (1 + erf(x / √2)) / 2: by the series
    x Σ (x²)ᵏ / (1·3·..·(2k+1)) near 0, and by the continued fraction of Laplace further out."""
    square, a = x * x, xp.abs(x)
    near = xp.clip(a, None, 4.0)
    term = total = near
    for k in range(1, 80):
        term = term * near * near / (2 * k + 1)
        total = total + term
    density = xp.exp(-square / 2) / (2 * xp.pi) ** 0.5
    inner = 0.5 - total * xp.exp(-near * near / 2) / (2 * xp.pi) ** 0.5  # of the tail above |x|
    far, fraction = xp.clip(a, 4.0, None), xp.clip(a, 4.0, None)
    for k in range(40, 0, -1):
        fraction = far + k / fraction
    tail = xp.where(a < 4.0, inner, density / fraction)
    return xp.where(x < 0, tail, 1 - tail)
