"""What tests of `clarion chat` share: a small model with a chat template, a pipe and a terminal to it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

from clarion.gguf import File, Writer
from tests.end_to_end.files import BUILT_IN

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# The same, and every answer begins with reasoning.
THINKS = TEMPLATE.replace("assistant:", "assistant:<think>\n") + "{# {{ m.reasoning_content }} #}"
CLARION = [sys.executable, "-m", "clarion"]
GREEDY = ["--greedy", "-n", "8"]
SECONDS = 60
# What the editor sends when it begins to wait for a message, and what stands for that in the text.
_READY, READY = b"\x1b[?2004h", "\u25b6"
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>()][0-9A-B]?)")


def model_with(path: Path, **more: object) -> str:
    """The built-in model, with more keys: `chat_template` at least."""
    names = {"chat_template": "tokenizer.chat_template"}
    keys = {names.get(key, key.replace("__", ".")): value for key, value in more.items()}
    with File.open(BUILT_IN) as file, Writer(path, {**file.metadata.exact(), **keys}) as writer:
        for name, tensor in file.tensors.items():
            writer.add(name, tensor.shape, tensor.format, tensor.data)
    return str(path)


def piped(
    path: str, typed: str | bytes, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`clarion chat` with lines from a pipe."""
    done = subprocess.run(
        [*CLARION, "chat", path, *arguments],
        input=typed.encode() if isinstance(typed, str) else typed,
        capture_output=True,
        timeout=SECONDS,
        env={**os.environ, **environment},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Terminal:
    """A terminal that is all three streams of `clarion chat`. What it shows is compared without colours."""

    def __init__(self, state: Path, *arguments: str, rows: int = 30, columns: int = 100) -> None:
        """`state`: the folder in which inputs are kept."""
        environment = {
            **os.environ,
            "TERM": "xterm",
            "XDG_STATE_HOME": str(state),
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here says where the cursor is
        }
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execve(sys.executable, [*CLARION, "chat", *arguments], environment)
        self.resize(rows, columns)
        self.raw = b""
        self._seen = 0  # characters of the text that were expected already
        self._code: int | None = None

    def type(self, text: str | bytes) -> None:
        os.write(self._terminal, text.encode() if isinstance(text, str) else text)

    def say(self, text: str) -> None:
        """Types a line at the prompt."""
        self.expect(READY)
        self.type(f"{text}\r")

    def expect(self, wanted: str, seconds: float = SECONDS) -> re.Match[str]:
        """Waits until the terminal shows something new that matches."""
        deadline = time.monotonic() + seconds
        while (found := re.search(wanted, self.text[self._seen :])) is None:
            left = deadline - time.monotonic()
            came = left > 0 and self._read(left)
            assert came, f"expected {wanted!r} in {self.text[self._seen :]!r}"
        self._seen += found.end()
        return found

    @property
    def text(self) -> str:
        seen = self.raw.replace(_READY, READY.encode())
        seen = re.sub(rb"\x1b\[(\d*)C", lambda found: b" " * int(found[1] or 1), seen)
        return _ESCAPES.sub(b"", seen).decode(errors="replace").replace("\r", "").replace("\b", "")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> int:
        """Waits for the end. Returns the exit code."""
        while self._code is None:
            if not self._read(SECONDS):
                self._code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return self._code

    def _read(self, seconds: float) -> bool:
        """Takes what comes; False: the other end is closed, or nothing came."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.raw += data
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._code is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._terminal)
