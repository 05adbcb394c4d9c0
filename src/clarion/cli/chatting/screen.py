"""What is shown of a chat: answers as they come, reasoning dim and folded, notes and errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from clarion.cli.options import say, warn
from clarion.conversation.reasoning import Part

if TYPE_CHECKING:
    from rich.live import Live

THINK: Final = ("show", "fold", "hide")
_DIM, _RED, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[0m"
# What would move the cursor or change the terminal, if a model wrote it.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Of reasoning that will be folded: lines that are shown, and characters that are enough for them.
WINDOW_LINES, WINDOW_CHARACTERS = 8, 4000


class Screen:
    """Where nobody watches: answers on standard output, everything else on standard error.

    Attributes:
        think: what is shown of reasoning: all of it, one line, or nothing.
    """

    def __init__(self, think: str) -> None:
        self.think = think
        self._kind = ""  # of what was printed last
        self._ends_line = True

    # ---- an answer ----------------------------------------------------------------------------------------

    def part(self, part: Part) -> None:
        """The next part of an answer."""
        if part.kind == "reasoning" and self.think != "show":
            return
        if self._kind not in ("", part.kind):
            self._break()
        self._kind = part.kind
        self._print(part.text)
        self._ends_line = part.text.endswith("\n")

    def thought(self, n_tokens: int, seconds: float) -> None:
        """Reasoning has ended."""
        if self.think == "fold":
            self.note(thought_line(n_tokens, seconds))

    def end(self) -> None:
        """An answer has ended: what follows begins a line."""
        if not self._ends_line:
            self._print("\n")
        self._kind, self._ends_line = "", True

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While an answer comes."""
        try:
            yield
        finally:
            self.end()

    def gap(self) -> None:
        """Between an answer and what is said next."""

    # ---- the rest -----------------------------------------------------------------------------------------

    def out(self, text: str) -> None:
        """What a command was asked for."""
        self._print(text + "\n")

    def note(self, text: str) -> None:
        """One line beside the conversation."""
        warn(text)

    def error(self, text: str) -> None:
        """What went wrong, in one line."""
        warn(text)

    def _break(self) -> None:
        """A line without text, between reasoning and answer."""
        self._print("\n" if self._ends_line else "\n\n")
        self._ends_line = True

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class TerminalScreen(Screen):
    """Where somebody watches: reasoning is dim, and gives way to one line where it is folded."""

    def __init__(self, think: str) -> None:
        super().__init__(think)
        self._window: _Window | None = None

    def part(self, part: Part) -> None:
        part = Part(part.kind, harmless(part.text), part.to)
        if part.kind == "reasoning" and self.think == "fold":
            if self._window is None:
                if self._kind:
                    self._break()
                self._kind = ""
                self._window = _Window()
            self._window.add(part.text)
            return
        self._close_window()
        if part.kind == "reasoning" and self.think == "show":
            part = Part(part.kind, _styled(_DIM, part.text), part.to)
            super().part(part)
            self._ends_line = part.text.removesuffix(_PLAIN).endswith("\n")
            return
        super().part(part)

    def thought(self, n_tokens: int, seconds: float) -> None:
        self._close_window()
        if self.think == "fold":
            self.note(thought_line(n_tokens, seconds))

    def end(self) -> None:
        self._close_window()
        super().end()

    def gap(self) -> None:
        self._print("\n")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Keys that are pressed meanwhile are for the next message; they are not shown in the answer."""
        with _without_echo(), super().answering():
            yield

    def note(self, text: str) -> None:
        say(_styled(_DIM, text))

    def error(self, text: str) -> None:
        say(_styled(_RED, text))

    def _close_window(self) -> None:
        if self._window is not None:
            window, self._window = self._window, None
            window.close()


class _Window:
    """The last lines of reasoning, which vanish when it is closed."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._text = ""
        self._console = Console(highlight=False)
        self._live: Live = Live(console=self._console, transient=True, refresh_per_second=8)
        self._live.start()

    def add(self, text: str) -> None:
        from rich.text import Text

        self._text = (self._text + text)[-WINDOW_CHARACTERS:]
        lines = Text(self._text, style="dim").wrap(self._console, self._console.width)
        self._live.update(Text("\n").join(lines[-WINDOW_LINES:]))

    def close(self) -> None:
        self._live.stop()


def _styled(style: str, text: str) -> str:
    """A text in a style, where the terminal has any and nobody forbids it (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{style}{text}{_PLAIN}"


def harmless(text: str) -> str:
    """A text of the model for a terminal, which it cannot take hold of."""
    return _CONTROL.sub("\ufffd", text.replace("\r", ""))


def thought_line(n_tokens: int, seconds: float) -> str:
    return f"thought for {seconds:.1f} s, {n_tokens} token{'' if n_tokens == 1 else 's'}"


@contextmanager
def _without_echo() -> Iterator[None]:
    """Lets the terminal not show what is typed; Ctrl-C still interrupts."""
    import termios

    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    silent[3] |= termios.NOFLSH  # Ctrl-C throws nothing away of what was typed or written
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
