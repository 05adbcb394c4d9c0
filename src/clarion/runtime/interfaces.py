"""What the engine needs of the executor and the sampler. Tests put small fakes in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class SamplerState(Protocol):
    """The sampling parameters and the history of one text."""

    def extend(self, tokens: Any) -> None:
        """`tokens`: a buffer of int32."""
        ...


# States of samplers, and of each the row of outputs that it draws its next token from.
Draws = tuple[Sequence[SamplerState], Sequence[int]]


class Executor(Protocol):
    """A program, ready to run batches, one at a time.

    Batches are buffers of int32: token t is tokens[t] at positions[t] of the sequence in slot slots[t]; of
    each group of states, its own lie where tables[group][slots[t]] says; `outputs` are the tokens, in rising
    order, whose rows are wanted.
    """

    @property
    def n_slots(self) -> int:
        """Sequences that have a state at once."""
        ...

    def run(
        self,
        tokens: Any,
        positions: Any,
        slots: Any,
        tables: list[memoryview],
        outputs: Any,
        draws: Draws,
    ) -> Sequence[int | ValueError] | None:
        """One batch, and then the tokens that samplers draw from its rows of outputs: each of them, or why it
        cannot be drawn. None when `cancel` ended the batch early, which leaves outputs and new positions
        undefined."""
        ...

    def cancel(self) -> None:
        """Ends the run in progress between two operations. From any thread."""
        ...

    def log_probabilities(self, row: int, token: int, n: int) -> list[tuple[int, float]]:
        """The token, then the n most probable ones of a row of the outputs, each with its log-probability."""
        ...

    def rows(self, name: str) -> memoryview:
        """An output's rows: float32 [max, width], a view that the next run overwrites."""
        ...
