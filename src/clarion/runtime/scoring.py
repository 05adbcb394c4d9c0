"""How probable a text's own tokens are: collected from its rows of logits, as the engine computes them."""

from __future__ import annotations

from collections.abc import Sequence

from clarion._native import sampling
from clarion.errors import ModelError
from clarion.runtime.completion import TokenLogprob
from clarion.runtime.request import Request, Score


class Scores:
    """The log-probabilities of tokens[first:], each after those before it.

    The engine's thread collects them; `found` may be read when the request has ended.
    """

    def __init__(self, tokens: Sequence[int], first: int, top: int) -> None:
        """`first` is 1 or more: nothing stands before token 0. `top`: most probable tokens of each place."""
        self._targets = tokens[first:]
        self._top = top
        self._sampler: sampling.Sampler | None = None  # made with the first row: many may wait in line
        self.found: list[TokenLogprob] = []
        # The last token's own row is nobody's: it would tell of the token behind it.
        self.request = Request(tuple(tokens[:-1]), Score(first - 1, self._take)) if self._targets else None

    def _take(self, row: int, logits: memoryview) -> None:
        import numpy as np

        rows = np.asarray(logits)  # [n, V]
        if self._sampler is None:
            self._sampler = sampling.Sampler(rows.shape[1])
        del self.found[row:]  # where the request was preempted, it gets the same rows again
        for target, values in zip(self._targets[row : row + len(rows)], rows, strict=True):
            try:
                (_, logprob), *top = self._sampler.log_probabilities(values, target, self._top)
            except ValueError as error:
                raise ModelError(f"token {target} has no log-probability: {error}") from error
            self.found.append(TokenLogprob(target, logprob, tuple(top)))
