"""What the bytes of a saved state mean. Nothing in it changes: any thread may use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from clarion.runtime.states.kinds import Kind


class Layout:
    """What a file must agree in with the states that it is loaded into."""

    def __init__(self, kinds: Sequence[Kind], meaning: str | Callable[[], str]) -> None:
        """`meaning`: the model, and how it computes; what finds it out is called where it is needed."""
        self._kinds = kinds
        self._meaning = meaning

    @cached_property
    def meaning(self) -> str:
        return self._meaning if isinstance(self._meaning, str) else self._meaning()

    @cached_property
    def fingerprints(self) -> list[dict[str, str | int]]:
        """Of each kind."""
        return [kind.fingerprint() for kind in self._kinds]

    def saved_bytes(self, n: int) -> int:
        """Of the states of n tokens, in a file."""
        return sum(kind.saved_bytes(n) for kind in self._kinds)

    def load_bytes(self, n: int) -> int:
        """That must be free to load them."""
        return sum(kind.load_bytes(n) for kind in self._kinds)
