"""What the engine needs of the executor, the states and the sampler. Tests put small fakes in their place."""

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


class SequenceState(Protocol):
    """What the machine holds of one sequence: keys and values of all of its tokens."""

    tokens: list[int]

    @property
    def slot(self) -> int: ...
    @property
    def length(self) -> int: ...
    def missing(self, n: int, *, alone: bool = False) -> int:
        """The bytes that `reserve(n)` needs beyond what the state has; `alone`: once nothing is retained."""
        ...

    def reserve(self, n: int) -> bool:
        """Makes room for n more tokens, also in place of what is retained; False, and no change, without."""
        ...

    def append(self, tokens: Sequence[int]) -> None:
        """These tokens are computed now."""
        ...

    def mark(self) -> None:
        """Somebody may want to go on from here."""
        ...

    def truncate(self, n: int) -> int:
        """Goes back to length n: exactly, within the last 16 tokens."""
        ...

    def release(self) -> None:
        """Gives everything back."""
        ...


class States(Protocol):
    """All states of an executor, in a budget of bytes. The engine's thread owns them."""

    @property
    def grain(self) -> int:
        """Tokens that share a unit of memory."""
        ...

    @property
    def table(self) -> Any:
        """The pages of each slot: a buffer of int32 [slots, pages of a slot]."""
        ...

    def open(self, tokens: Sequence[int], *, reuse: bool) -> SequenceState | None:
        """A state for a sequence; None without a free slot. With `reuse` it begins with what a retained one
        computed of these tokens, the last one left out."""
        ...

    def retain(self, state: Any) -> None:
        """The state's sequence has ended; what it computed may be the beginning of another one."""
        ...

    def room_for(self, n_bytes: int) -> bool:
        """Whether so many bytes are free, or would be without what is retained."""
        ...

    def forget(self) -> None:
        """Gives up everything that is retained."""
        ...
