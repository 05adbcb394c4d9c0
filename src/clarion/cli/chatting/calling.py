"""Calls of tools: whoever sits there is asked first, and sees what comes of them."""

from __future__ import annotations

import json
from typing import Any, Final

from clarion.cli.chatting.reading import Reader
from clarion.cli.chatting.screen import Screen, harmless
from clarion.cli.chatting.servers import Tools
from clarion.conversation.calls import Call

SHOWN_CHARACTERS: Final = 400  # of a result; the model reads all of it


class Calling:
    """What a chat does with calls.

    Attributes:
        tools: those that there are.
        always: the names of those that nobody is asked about any more.
    """

    def __init__(self, tools: Tools, *, without_asking: bool) -> None:
        self.tools = tools
        self.always: set[str] = set(tools.servers) if without_asking else set()

    def result(self, call: Call, reader: Reader, screen: Screen) -> tuple[str, bool]:
        """What the model is told of a call, and whether Ctrl-C ended it."""
        if call.error is not None:
            screen.note(f"a call cannot be read: {call.error}")
            return f"error: the call cannot be read: {call.error}", False
        try:
            if not self._allowed(call, reader, screen):
                return "error: the user does not allow this call", False
            text, failed = self.tools.call(call.name, call.arguments)
        except KeyboardInterrupt:
            screen.note("interrupted: the call has no result")
            return "error: the user interrupted the call", True
        screen.note(f"{'error' if failed else 'result'}: {_cut(text)}")
        return f"error: {text}" if failed else text, False

    def _allowed(self, call: Call, reader: Reader, screen: Screen) -> bool:
        shown = harmless(f"{call.name}({_arguments(call.arguments)})")
        if call.name in self.always or call.name not in self.tools.servers:
            screen.note(f"calls {shown}")
            return True
        answer = reader.ask(f"call {shown}? yes, no or always: ").lower()
        if answer in ("a", "always"):
            self.always.add(call.name)
        allowed = answer in ("y", "yes", "a", "always")
        if not allowed:
            screen.note(f"not called: {shown}")
        return allowed


def _arguments(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())


def _cut(text: str) -> str:
    text = harmless(text)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}\u2026 ({len(text)} characters)"
