"""Choosing the next token: the same bits whatever the instruction set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_Ints = np.ndarray[tuple[int], np.dtype[np.int32]]
_Floats = np.ndarray[tuple[int], np.dtype[np.float32]]

class SamplerState:
    """The sampling parameters and the history of one sequence."""

    def __init__(self, n_vocab: int, parameters: Mapping[str, object]) -> None: ...
    def extend(self, tokens: _Ints) -> None: ...

class Sampler:
    """The sampling workspace of one thread."""

    def __init__(self, n_vocab: int) -> None: ...
    def sample(self, state: SamplerState, logits: _Floats) -> int: ...
    def survivors(self, state: SamplerState, logits: _Floats) -> list[tuple[int, float]]: ...
    def log_probabilities(self, logits: _Floats, token: int, n: int) -> list[tuple[int, float]]: ...

class Drawing:
    """Tokens to be drawn, as a run's epilogue."""

    @property
    def epilogue(self) -> object: ...
    def tokens(self) -> list[int | str]:
        """After the run: what each state drew, a token, or the message of an error."""

class Samplers:
    """A sampling workspace for each thread that draws."""

    def __init__(self, n_vocab: int, threads: int) -> None: ...
    def drawing(self, states: Sequence[SamplerState], logits: memoryview, rows: Sequence[int]) -> Drawing: ...
    def log_probabilities(
        self, logits: memoryview, row: int, token: int, n: int
    ) -> list[tuple[int, float]]: ...

def score(
    logits: np.ndarray[Any, np.dtype[np.floating[Any]]],
    targets: np.ndarray[Any, np.dtype[np.int64]],
    reference: np.ndarray[Any, np.dtype[np.floating[Any]]] | None,
    threads: int,
    surprise: np.ndarray[Any, np.dtype[np.float64]],
    divergence: np.ndarray[Any, np.dtype[np.float64]],
    choice: np.ndarray[Any, np.dtype[np.int64]],
) -> None:
    """See `clarion.evaluate.figures.score`. ValueError: sizes do not fit, or a target is no token."""
