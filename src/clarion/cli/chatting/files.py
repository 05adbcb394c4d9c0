"""Conversations in files: JSON with the messages and the sampling options, and beside it the model's states.

A file is written beside its place and then put there; it is read and checked as a whole before anything
changes. The states are what the model computed of the conversation: with them, going on computes nothing
again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clarion.cli.prompt import MAX_TEXT_BYTES
from clarion.conversation.history import History
from clarion.errors import ContextError, FileError, FormatError, ParameterError
from clarion.gguf.writable import check_writable, write_beside

if TYPE_CHECKING:
    from clarion.cli.chatting.talk import Talk

_KIND: Final = "clarion chat"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds."""

    history: History
    options: Mapping[str, Any]
    model: str


def save(path: str, talk: Talk) -> None:
    """Writes a conversation.

    Raises:
        FileError: it cannot be written, or another kind of file is there.
    """
    check_writable(path)
    if os.path.exists(path):
        try:
            read(path)
        except FormatError:
            raise FileError(
                f"{path}: cannot be written: another kind of file is there, which is kept"
            ) from None
    document = {
        "kind": _KIND,
        "version": _VERSION,
        "model": talk.model.path.name,
        "settings": talk.settings.options,
        "messages": talk.history.as_json(),
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_beside(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))


def read(path: str) -> Saved:
    """What a file of `save` holds.

    Raises:
        FileError: it cannot be read.
        FormatError: it is no such file; the message says what is wrong.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise FileError(f"{path!r}: cannot be read: {error}") from None
    if len(data) > MAX_TEXT_BYTES:
        raise FormatError(f"{path}: found more than {MAX_TEXT_BYTES} bytes, expected a conversation")
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no conversation that was saved: no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise FormatError(f'{path}: no conversation that was saved: "kind" is not {_KIND!r}')
    if document.get("version") != _VERSION:
        found = document.get("version")
        raise FormatError(f'{path}: "version": found {found!r:.40}, expected {_VERSION}')
    settings = document.get("settings")
    if not isinstance(settings, dict):
        raise FormatError(f'{path}: "settings": found {settings!r:.40}, expected an object')
    try:
        history = History.from_json(document.get("messages"))
    except ParameterError as error:
        raise FormatError(f"{path}: {error}") from None
    return Saved(history, settings, str(document.get("model")))


def states_path(path: str) -> str:
    """Where the states of a conversation in this file are."""
    return f"{path}.state"


def save_states(path: str, talk: Talk) -> int:
    """Writes what the model computed of the conversation beside its file. Returns the bytes.

    Raises:
        FileError: it cannot be written.
    """
    ids = talk.tokens(talk.text(add_generation_prompt=False))
    return talk.model.save_session(states_path(path), ids[: talk.model.context])


def load_states(path: str, talk: Talk) -> str | None:
    """Reads what `save_states` wrote, if it is there. Returns why it is of no use, if so: the conversation
    goes on without it, and is computed again."""
    if not os.path.exists(states_path(path)):
        return None
    try:
        talk.model.load_session(states_path(path))
    except (FileError, ParameterError, ContextError) as error:
        return str(error)
    return None


def load(path: str, talk: Talk, over: Mapping[str, Any] | None = None) -> Saved:
    """Goes on with a conversation that was saved; of its options, `over` replaces some.

    Raises:
        FileError, FormatError: it cannot be read. Nothing changes.
    """
    saved = read(path)
    try:
        talk.settings.replace({**saved.options, **(over or {})})
    except ParameterError as error:
        raise FormatError(f'{path}: "settings": {error}') from None
    talk.history = saved.history
    return saved
