"""Where messages come from at a terminal: an editor of several lines, with history and completion."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from clarion.cli.chatting.lines import goes_on, message, next_line
from clarion.cli.options import warn
from clarion.folders import state_folder

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

Complete = Callable[[str], Iterable[str]]


class TerminalReader:
    """Lets a person type messages. The terminal is the editor's only while it waits for one."""

    def __init__(self, complete: Complete, *, keep_history: bool) -> None:
        """
        Args:
            complete: the words that may stand in the place of the last one of a text.
            keep_history: inputs are kept in a file, for the next chat.
        """
        from prompt_toolkit import PromptSession

        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            history=_history() if keep_history else None,
            completer=_completer(complete),
            complete_while_typing=False,
            prompt_continuation=lambda width, line, wrapped: "" if wrapped else "\u2026 ".rjust(width),
            enable_open_in_editor=False,
        )
        # Lines that the terminal itself wraps look as they will be sent.
        self._one_line: PromptSession[str] = PromptSession()

    def read(self) -> str | None:
        return self._read("")

    def edit(self, text: str) -> str | None:
        return self._read(text)

    def ask(self, question: str) -> str:
        try:
            return self._one_line.prompt(question).strip()
        except EOFError:
            return ""

    def _read(self, default: str) -> str | None:
        try:
            return message(self._session.prompt("> ", default=default))
        except EOFError:
            return None


def _keys() -> KeyBindings:
    """Enter sends, unless the message goes on; Alt-Enter begins a line; Ctrl-C drops what is typed."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text, before = buffer.text, buffer.document.text_before_cursor
        if not goes_on(text):
            buffer.validate_and_handle()
        elif next_line(text) == text + "\n":  # its quotes are open
            buffer.newline(copy_margin=False)
        elif before == text:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:  # the cursor stands before the \ that it ends in
            buffer.validate_and_handle()

    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    def drop(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    keys.add("enter")(send)
    keys.add("c-c")(drop)
    keys.add("c-j")(send)  # what Enter was while an answer came
    keys.add("escape", "enter")(newline)
    return keys


def _completer(complete: Complete) -> Any:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.completion import Completion as Made

    class Words(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            last = text.rpartition(" ")[2]
            return (Made(word, start_position=-len(last)) for word in complete(text))

    return Words()


def _history() -> History | None:
    """The inputs of earlier chats, in a file that nobody else reads; None: it cannot be kept."""
    from prompt_toolkit.history import FileHistory

    path = state_folder() / "clarion" / "chat-history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        warn(f"{path}: inputs cannot be kept: {error.strerror}")
        return None
    return FileHistory(path)
