"""What the runtime needs of a native module. The tests put small fakes in its place."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

PAGE_SIZE = 64  # positions in one page of the KV cache


class Program(Protocol):
    """A plan, ready to run."""

    def run(
        self, cache: Any, tokens: Ints, positions: Ints, sequences: Ints, pages: Ints, outputs: Ints
    ) -> bool:
        """One batch; False when `cancel` ended it early, which leaves outputs and new positions undefined."""
        ...

    def cancel(self) -> None: ...
    def buffer(self, name: str) -> Floats: ...


class KvCache(Protocol):
    """Keys and values of all layers, in pages."""

    def copy_page(self, source: int, destination: int) -> None: ...


class SamplerState(Protocol):
    """The sampling parameters and the history of one sequence."""

    def extend(self, tokens: Ints) -> None: ...


class Sampler(Protocol):
    """The sampling workspace of one thread."""

    def sample(self, state: Any, logits: Floats) -> int: ...
    def log_probabilities(self, logits: Floats, token: int, n: int) -> list[tuple[int, float]]: ...
