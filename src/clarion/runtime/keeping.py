"""Which prefixes go to a folder, and which requests begin with one of there: the engine's thread asks.

Texts that ended are written when nobody wants anything, and at the end; what is evicted before is lost. So no
step waits for the folder. A request whose tokens begin with much more than is retained waits until that is
read, while others go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from clarion.errors import CancelledError, ClosedError
from clarion.runtime.states.folder import Kept, PrefixFolder
from clarion.runtime.states.prefixes import LEAST_KEPT
from clarion.runtime.states.states import States

# Texts that ended and are not in the folder yet at most: as long as others run, none is written.
MOST_TO_KEEP = 16


class Keeper:
    """The folder, and what it does not have yet."""

    def __init__(self, folder: PrefixFolder, states: States) -> None:
        self.folder = folder
        self._states = states
        self._ended: list[list[int]] = []  # the latest last

    def find(self, tokens: list[int], n_retained: int) -> tuple[int, Kept] | None:
        """A file, and for how many of the tokens it stands, where so many more than are retained pay."""
        n, kept = self.folder.longest(tokens, n_retained)
        return None if kept is None else (n, kept)

    def note(self, tokens: Sequence[int]) -> None:
        """A text has ended, which others may continue, also after a restart."""
        if len(tokens) >= LEAST_KEPT:
            ended = list(tokens)
            self._ended = [other for other in self._ended if ended[: len(other)] != other]
            self._ended.append(ended)
            del self._ended[:-MOST_TO_KEEP]

    def next(self) -> list[int] | None:
        """Tokens that are retained and worth a file; the latest first, which are evicted last."""
        while self._ended:
            tokens = self._ended.pop()
            tokens = tokens[: self._states.prefixes.longest(tokens)]
            fits = self._states.layout.saved_bytes(len(tokens)) <= self.folder.budget_bytes
            if len(tokens) >= LEAST_KEPT and fits and not self.folder.covers(tokens):
                return tokens
        return None

    def finish(self) -> None:
        """At the end: writes all of it."""
        while (tokens := self.next()) is not None:
            state = self._states.open(tokens, reuse=True, most=len(tokens))
            if state is None:  # texts that nobody waits for any more have all slots
                return
            try:
                self.folder.keep(state, _go_on)
            except Exception as error:
                self.hear(error)
            state.release()

    def hear(self, result: object) -> None:
        """A prefix was written, or not: nobody waits for it, so an error is a warning."""
        if isinstance(result, Exception) and not isinstance(result, CancelledError | ClosedError):
            warnings.warn(f"a prefix is not kept: {result}", stacklevel=2)


def _go_on() -> None:
    """Nobody ends it."""
