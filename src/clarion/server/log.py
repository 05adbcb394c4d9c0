"""What the server says on standard error: lines that begin with `clarion: `, and no text of anybody's."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress


class Log:
    """Lines on standard error.

    Attributes:
        texts: whether prompts and answers are shown.
    """

    def __init__(self, *, quiet: bool = False, texts: bool = False) -> None:
        self._quiet = quiet
        self.texts = texts

    def say(self, line: str) -> None:
        """One line, unless all shall be quiet."""
        if not self._quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        """One line, in any case."""
        with suppress(OSError):  # where nobody can be told, requests are answered all the same
            print(f"clarion: {line}", file=sys.stderr, flush=True)

    def text(self, what: str, text: str) -> None:
        """A prompt or an answer, where these are shown."""
        if self.texts:
            self.warn(f"{what}: {text!r}")

    def failure(self, error: BaseException) -> None:
        """An error that nobody foresaw: its kind and its way. Its message may hold texts."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        message = f": {error}" if self.texts else ""
        self.warn(f"internal error: {type(error).__name__}{message}\n{frames.rstrip()}")
