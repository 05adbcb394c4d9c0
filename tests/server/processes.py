"""`clarion serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server.servers import wait_until

CLARION = [sys.executable, "-m", "clarion", "serve"]


class Process:
    """`clarion serve`, and what it has said."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*CLARION, "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def url(self) -> str:
        """Waits until it listens."""
        wait_until(lambda: any("listening at" in line for line in self.lines), "it does not start", 60)
        found = re.search(r"listening at (\S+) ", "\n".join(self.lines))
        assert found is not None
        return found[1]

    def end(self) -> int:
        code = self.process.wait(30)
        self._thread.join(10)
        assert self.process.stdout is not None
        assert self.process.stdout.read() == ""
        return code


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[Process]:
    found = Process(*arguments, **environment)
    try:
        yield found
    finally:
        found.process.kill()
        found.end()
