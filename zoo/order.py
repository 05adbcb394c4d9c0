"""The order in which a text is seen: a function of the seed and the step, so that training resumes exactly.

Each pass over the text shuffles the documents, joins them, begins at a random token, cuts windows side by
side and shuffles those: each pass cuts elsewhere. What does not fill a window is left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zoo.corpus import Tokens


class Order:
    """Windows of `context` tokens and the ones that follow each of them."""

    def __init__(self, tokens: Tokens, context: int, seed: int) -> None:
        self._tokens = tokens
        self._context = context
        self._seed = seed
        # One window less than fits, since a pass begins up to a window later; targets are one token further.
        self.n_windows = (len(tokens.ids) - 1) // context - 1
        if self.n_windows < 1:
            raise ValueError(f"the text has {len(tokens.ids)} tokens, expected at least {2 * context + 1}")
        self._pass = lru_cache(maxsize=1)(self._shuffled)

    def batch(self, step: int, n_windows: int) -> NDArray[np.int64]:
        """Windows for a step, each with one token more: the inputs are [:, :-1], the targets [:, 1:].

        Returns:
            int64 [n_windows, context + 1].
        """
        numbers = range(step * n_windows, (step + 1) * n_windows)
        return np.stack([self._window(number) for number in numbers])

    def _window(self, number: int) -> NDArray[np.int64]:
        epoch, index = divmod(number, self.n_windows)
        ids, begins = self._pass(epoch)
        begin = begins[index]
        return ids[begin : begin + self._context + 1].astype(np.int64)

    def _shuffled(self, epoch: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """The text of one pass, and where its windows begin."""
        random = np.random.default_rng([self._seed, epoch])
        starts = self._tokens.starts
        ids = np.concatenate(
            [self._tokens.ids[starts[d] : starts[d + 1]] for d in random.permutation(len(starts) - 1)]
        )
        offset = int(random.integers(self._context))
        return ids, offset + self._context * random.permutation(self.n_windows)
