"""What the engine needs of the executor and the sampler. Tests put small fakes in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class SamplerState(Protocol):
    """The sampling parameters and the history of one text."""

    def extend(self, tokens: Any) -> None:
        """`tokens`: a buffer of int32."""
        ...


class Executor(Protocol):
    """A program, ready to run batches, one at a time.

    Batches are buffers of int32: token t is tokens[t] at positions[t] of the sequence in slot slots[t]; its
    keys and values lie where pages[slots[t]] says; `outputs` are the tokens, in rising order, whose rows are
    wanted.
    """

    @property
    def n_slots(self) -> int:
        """Sequences that have a state at once."""
        ...

    def run(self, tokens: Any, positions: Any, slots: Any, pages: Any, outputs: Any) -> bool:
        """One batch; False when `cancel` ended it early, which leaves outputs and new positions undefined."""
        ...

    def cancel(self) -> None:
        """Ends the run in progress between two operations. From any thread."""
        ...

    def sample(self, states: Sequence[SamplerState], rows: Sequence[int]) -> Sequence[int | ValueError]:
        """The token that states[i] draws from row rows[i] of the outputs, or why it cannot."""
        ...

    def log_probabilities(self, row: int, token: int, n: int) -> list[tuple[int, float]]:
        """The token, then the n most probable ones of a row of the outputs, each with its log-probability."""
        ...

    def rows(self, name: str) -> memoryview:
        """An output's rows: float32 [max, width], a view that the next run overwrites."""
        ...
