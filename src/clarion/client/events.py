"""Server-sent events, from the bytes of an answer however they are cut.

Lines end with CR, LF or both, and with nothing else: a text may hold other characters that Python takes for
ends of lines.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")  # what a \r at the end belongs to is not known yet


class Events:
    """Reads the data of events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, content: bytes) -> list[str]:
        """The data of the events that these bytes end."""
        *lines, self._rest = re.split(_END, self._rest + content)
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data.clear()
        return found
