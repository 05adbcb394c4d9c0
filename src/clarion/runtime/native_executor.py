"""An executor over one native program, its cache and a native sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clarion._native import sampling


class NativeExecutor:
    """See `interfaces.Executor`. The engine's thread uses it, except for `cancel`."""

    def __init__(self, program: Any, cache: Any, *, n_slots: int) -> None:
        self.n_slots = n_slots
        self._program = program
        self._cache = cache
        self._logits = program.buffer("logits")  # [max_outputs, V]
        self._sampler = sampling.Sampler(self._logits.shape[1])

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        return int(self._cache.bytes) // int(self._cache.pages)

    def copy_page(self, source: int, destination: int) -> None:
        self._cache.copy_page(source, destination)

    def run(self, tokens: Any, positions: Any, slots: Any, pages: Any, outputs: Any) -> bool:
        return bool(self._program.run(self._cache, tokens, positions, slots, pages, outputs))

    def cancel(self) -> None:
        self._program.cancel()

    def sample(self, states: Sequence[Any], rows: Sequence[int]) -> list[int | ValueError]:
        return [self._draw(state, row) for state, row in zip(states, rows, strict=True)]

    def log_probabilities(self, row: int, token: int, n: int) -> list[tuple[int, float]]:
        return self._sampler.log_probabilities(self._logits[row], token, n)

    def rows(self, name: str) -> memoryview:
        return memoryview(self._program.buffer(name))

    def _draw(self, state: Any, row: int) -> int | ValueError:
        try:
            return self._sampler.sample(state, self._logits[row])
        except ValueError as error:
            return error
