"""Chat templates: from messages to the text that a model was trained on."""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from clarion.errors import ParameterError, TemplateError
from clarion.exiting import after_fork, wait_for_the_end

START_SECONDS: Final = 60.0
WALL_SECONDS: Final = 20.0  # the worker ends itself after two seconds of processor time
MAX_TEMPLATE_CHARACTERS: Final = 1 << 20


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    bos_token: str = "",
    eos_token: str = "",
    **variables: Any,
) -> str:
    """The text of a conversation.

    The template is rendered in a process of its own, which stays for the next call. It is killed if the
    template takes too long; its memory and its output are limited.

    Args:
        template: Jinja, as `tokenizer.chat_template` holds it.
        messages: objects with `role` and `content`, and what else the template knows.
        add_generation_prompt: let the text end where the model's answer begins.
        tools: descriptions of functions that the model may call.
        bos_token, eos_token: the texts of these tokens.
        variables: what else the template knows.

    Raises:
        ParameterError: a value is no JSON.
        TemplateError: the template is malformed or too long, does what is forbidden, exceeds a limit, or
            refuses the messages.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(template)} characters, at most {MAX_TEMPLATE_CHARACTERS} are allowed"
        )
    variables = {"documents": None} | variables  # templates ask whether there are any, as `tools`
    variables |= {
        "messages": messages,
        "add_generation_prompt": add_generation_prompt,
        "tools": tools,
        "bos_token": bos_token,
        "eos_token": eos_token,
    }
    try:
        request = json.dumps({"template": template, "variables": variables}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"the variables of a chat template must be JSON: {error}") from None
    return _worker.render(request)


class _Worker:
    """The process that renders. It is started when it is first needed, and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._exiting = False

    def render(self, request: bytes) -> str:
        """The output of one request; one at a time."""
        try:
            return self._render(request)
        except Exception:
            if self._exiting:
                wait_for_the_end()
            raise

    def exit(self) -> None:
        """Kills the process when the interpreter exits. Other threads may wait for its answer."""
        self._exiting = True
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()

    def forget(self) -> None:
        """In a forked process: the other one's lock and process are not ours."""
        self._lock = threading.Lock()
        self._process = None

    def _render(self, request: bytes) -> str:
        with self._lock:
            if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
                self._start()
            try:
                reply = self._ask(request, WALL_SECONDS)
            except (OSError, EOFError):
                self.stop()
                raise TemplateError(
                    "chat template: it takes too much time or memory, and was stopped"
                ) from None
            except BaseException:  # Ctrl-C: the reply would be taken for that to the next request
                self.stop()
                raise
        if "error" in reply:
            raise TemplateError(f"chat template: {reply['error']}")
        return reply["output"]

    def stop(self) -> None:
        """Kills the process, if this one started it."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _start(self) -> None:
        self.stop()
        # Its imports are found where ours are. A session of its own keeps Ctrl-C from it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("sandbox.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            self._owner = os.getpid()
            self._ask(b"", START_SECONDS)
        except (OSError, EOFError) as error:
            self.stop()
            raise TemplateError(
                f"the process that renders chat templates does not start: {error!r}"
            ) from None

    def _ask(self, request: bytes, seconds: float) -> dict[str, str]:
        """Sends a request, if there is one, and waits for the reply."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        if request:
            self._process.stdin.write(struct.pack("<I", len(request)) + request)
            self._process.stdin.flush()
        output = self._process.stdout.fileno()
        (size,) = struct.unpack("<I", _read(output, 4, deadline))
        reply: dict[str, str] = json.loads(_read(output, size, deadline))
        return reply


def _read(descriptor: int, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, before the deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < size:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


_worker = _Worker()
atexit.register(_worker.exit)
after_fork(_worker.forget)
