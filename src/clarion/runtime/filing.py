"""States that are written to files and read from them, on a thread of its own, while the engine goes on.

Who owns what. An errand has a sequence to itself: from when the engine hands it over until it is over, nobody
else touches the sequence, and the scheduler does not take its place away. So it reads and writes pages and
slots in place, beside a running step, which touches only those of others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from clarion.errors import CancelledError, ParameterError
from clarion.exiting import Background
from clarion.gguf.texts import as_path
from clarion.runtime.request import Load, Request, Save
from clarion.runtime.states.layout import Layout
from clarion.runtime.states.states import SequenceState

Work = Callable[[Callable[[], None]], int]  # gets `go_on`, which ends it by an error


class Errand:
    """Work on a state that nobody else touches until it is over.

    Attributes:
        result: once it is over.
        is_unwanted: somebody abandoned it, perhaps too late.
    """

    def __init__(self, work: Work, is_over: Callable[[], None]) -> None:
        """`is_over` is called at the end, by the thread that did the work."""
        self.result: int | BaseException = CancelledError("the computation was cancelled")
        self._work = work
        self._is_over = is_over
        self._over = threading.Event()
        self.is_unwanted = False

    def do(self) -> None:
        try:
            self.result = self._work(self._go_on)
        except BaseException as error:
            self.result = error
        self._over.set()
        self._is_over()

    def abandon(self) -> None:
        """Nobody wants it any more: it ends soon. From any thread."""
        self.is_unwanted = True

    def wait(self) -> None:
        """Until it is over."""
        self._over.wait()

    def _go_on(self) -> None:
        if self.is_unwanted:
            raise CancelledError("the computation was cancelled")


class Disk:
    """The thread that does errands, one after the other."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[Errand | None] = SimpleQueue()
        self.thread = Background(self._loop, name="clarion-disk")
        self._has_started = False

    def start(self) -> None:
        """Before the first errand; may be called again. RuntimeError where the system refuses a thread."""
        if not self._has_started:
            self.thread.start()
            self._has_started = True

    def do(self, errand: Errand) -> None:
        self._errands.put(errand)

    def close(self) -> None:
        """The thread ends when it has done all errands."""
        self._errands.put(None)

    def join(self) -> None:
        if self._has_started:
            self.thread.join()

    def _loop(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """Afterwards this thread holds nothing of the errand."""
        errand = self._errands.get()
        if errand is not None:
            errand.do()
        return errand is not None


def save(state: SequenceState, path: Path) -> Work:
    """Writes a state; the result is the bytes of the file."""
    return lambda go_on: state.save(path, go_on)


def load(state: SequenceState, path: Path, layout: Layout, tokens: tuple[int, ...]) -> Work:
    """Reads a state of these tokens, for which there is room; the result is how many they are."""

    def work(go_on: Callable[[], None]) -> int:
        from clarion.runtime.states.files import SavedState

        with SavedState(path) as saved:
            saved.check(layout, len(tokens))
            if saved.n_tokens != len(tokens):
                raise ParameterError(f"{path}: the file has changed since it was opened")
            state.fill(saved, go_on)
        if tuple(state.tokens) != tokens:
            raise ParameterError(f"{path}: the file has changed since it was opened")
        return len(tokens)

    return work


# ---- sessions ----------------------------------------------------------------------------------------------


def saving(
    path: str | os.PathLike[str], tokens: list[int], layout: Layout, model: Path, start: Callable[[], None]
) -> Request:
    """What asks for the state of tokens in a file.

    Raises:
        ParameterError: no tokens, or `path` is no name of a file.
        FileError: it cannot be written, or the disk has no room for it, or it is the model's own.
    """
    if not tokens:
        raise ParameterError("tokens: found none, expected at least one")
    from clarion.gguf.writable import check_writable  # who saves nothing starts without it

    start()
    file = as_path(path)
    check_writable(file, layout.saved_bytes(len(tokens)), reads=[model])
    return Request(tuple(tokens), Save(file))


def loading(
    path: str | os.PathLike[str], layout: Layout, context: int, start: Callable[[], None]
) -> tuple[list[int], Request | None]:
    """The tokens of a saved state, and what asks for it; None where there are none.

    Raises:
        FileError, FormatError: the file cannot be read, is no saved state, or cut.
        ParameterError: it is another model's.
        ContextError: it has more tokens than the context.
    """
    from clarion.runtime.states.files import SavedState

    start()
    with SavedState(path) as saved:
        saved.check(layout, context)
        tokens = saved.tokens()
    return tokens, Request(tuple(tokens), Load(saved.path)) if tokens else None
