"""Where messages come from when nobody types at a terminal: lines of standard input."""

from __future__ import annotations

import sys
from typing import BinaryIO, Protocol

from clarion.cli.chatting.lines import goes_on, message, next_line
from clarion.cli.prompt import MAX_TEXT_BYTES
from clarion.errors import FileError, ParameterError


class Reader(Protocol):
    """What gives messages and commands, one after the other."""

    def read(self) -> str | None:
        """The next one; None: there are no more."""

    def edit(self, text: str) -> str | None:
        """A text as the person changed it; None: nobody can."""

    def ask(self, question: str) -> str:
        """An answer to a question; "": there is none."""


class LineReader:
    """Reads standard input, of which each line is a message or a command."""

    def __init__(self) -> None:
        if sys.stdin is None:
            raise FileError("standard input: it is closed")
        self._stream: BinaryIO = sys.stdin.buffer
        self._n_lines = 0

    def read(self) -> str | None:
        line = self._line()
        if line is None:
            return None
        text = line
        while goes_on(text):
            line = self._line()
            if line is None:
                break
            text = next_line(text) + line
        return message(text)

    def edit(self, text: str) -> str | None:
        return None

    def ask(self, question: str) -> str:
        return ""

    def _line(self) -> str | None:
        data = self._stream.readline(MAX_TEXT_BYTES + 1)
        if not data:
            return None
        self._n_lines += 1
        where = f"standard input, line {self._n_lines}"
        if len(data) > MAX_TEXT_BYTES:
            raise ParameterError(f"{where}: found more than {MAX_TEXT_BYTES} bytes, expected a message")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ParameterError(
                f"{where}: found byte 0x{data[error.start]:02x} at offset {error.start}, expected UTF-8"
            ) from None
        return text.removeprefix("\ufeff" if self._n_lines == 1 else "").removesuffix("\n").removesuffix("\r")
