"""The commands of a chat: what each is called, what it takes, and what it does."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clarion.cli.chatting import settings
from clarion.cli.chatting.screen import THINK
from clarion.cli.suggest import nearest
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion.cli.chatting.app import Chat


@dataclass(frozen=True, slots=True)
class Command:
    """What may be typed after /.

    Attributes:
        names: the first is shown.
        takes: what stands behind it, as the help shows it.
        help: what it does.
        run: does it, with what stands behind the name.
    """

    names: tuple[str, ...]
    takes: str
    help: str
    run: Callable[[Chat, str], None]


def run(chat: Chat, text: str) -> None:
    """Does what a line says that begins with /.

    Raises:
        ParameterError: there is no such command, or it does not take this.
    """
    word, _, argument = (
        text[1:].partition(" ") if " " in text.partition("\n")[0] else text[1:].partition("\n")
    )
    command = _BY_NAME.get(word.lower())
    if command is None:
        meant = nearest(word, _BY_NAME) if "/" not in word else None
        hint = f"did you mean /{meant}? " if meant else ""
        raise ParameterError(
            f"/{word[:40]}: no such command; {hint}/help lists them. "
            f"A message that begins with / stands behind a space"
        )
    argument = argument.strip()
    if argument and not command.takes:
        raise ParameterError(f"/{command.names[0]}: found {argument[:40]!r}, expected nothing behind it")
    command.run(chat, argument)


def complete(text: str) -> Iterable[str]:
    """The words that may stand in the place of the last one of a line."""
    before, space, last = text.rpartition(" ")
    if not text.startswith("/"):
        return []
    if not space:
        return [f"/{command.names[0]}" for command in COMMANDS if command.names[0].startswith(last[1:])]
    word = before.partition(" ")[0]
    if word == "/set" and " " not in before:
        return [name for name in settings.names() if name.startswith(last.lower())]
    if word == "/think":
        return [mode for mode in THINK if mode.startswith(last)]
    if word in ("/save", "/load"):
        found = glob.glob(glob.escape(os.path.expanduser(last)) + "*")
        return sorted(path + os.sep * os.path.isdir(path) for path in found)
    return []


# ---- what each does ----------------------------------------------------------------------------------------


def _help(chat: Chat, _: str) -> None:
    rows = [(f"/{command.names[0]} {command.takes}".rstrip(), command.help) for command in COMMANDS]
    keys = [
        ("Enter", "sends"),
        ("Alt-Enter, or \\ at the end", "begins another line"),
        ('"""', "begins and ends a text of several lines"),
        ("Up", "brings back what you typed"),
        ("Ctrl-C", "ends an answer"),
        ("Ctrl-D", "leaves"),
    ]
    width = max(len(left) for left, _ in rows + keys)
    chat.screen.out("\n".join(f"{left:{width}}  {right}" for left, right in rows + keys))


def _system(chat: Chat, text: str) -> None:
    if not text:
        chat.screen.out(chat.talk.history.system or "the system says nothing; /system TEXT")
        return
    chat.talk.history.system = None if text == "none" else text
    chat.screen.note("from the next answer on, the system says " + ("nothing" if text == "none" else "this"))


def _set(chat: Chat, text: str) -> None:
    name, _, value = text.partition(" ")
    options = chat.talk.settings
    if name and value.strip():
        options.set(name, value.strip())
        chat.screen.note(options.show(name))
    elif name:
        chat.screen.out(options.show(name))
    else:
        rows = options.table()
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        chat.screen.out("\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in rows))


def _think(chat: Chat, mode: str) -> None:
    if mode not in ("", *THINK):
        raise ParameterError(f"/think: found {mode[:40]!r}, expected show, fold or hide")
    chat.screen.think = mode or chat.screen.think
    chat.screen.note(f"reasoning: {chat.screen.think}")


def _undo(chat: Chat, _: str) -> None:
    exchange = chat.talk.history.undo()
    if exchange is None:
        raise ParameterError("/undo: nothing was said yet")
    chat.screen.note(f"taken back: {brief(exchange[0]['content'])}")


def _redo(chat: Chat, _: str) -> None:
    exchange = chat.talk.history.redo()
    if exchange is None:
        raise ParameterError("/redo: nothing was taken back since you spoke last")
    chat.screen.note(f"brought back: {brief(exchange[0]['content'])}")


def _regenerate(chat: Chat, _: str) -> None:
    if chat.talk.history.last_text is None:
        raise ParameterError("/regenerate: nothing was said yet")
    options = chat.talk.settings.options
    if options.get("greedy") or options.get("temperature") == 0 or options.get("seed") is not None:
        chat.screen.note("the same options draw the same answer: /set seed, or temp, makes another one")
    chat.say_again(chat.talk.history.last_text)


def _edit(chat: Chat, text: str) -> None:
    last = chat.talk.history.last_text
    if last is None:
        raise ParameterError("/edit: nothing was said yet")
    edited = text or chat.reader.edit(last)
    if edited is None:
        raise ParameterError("/edit: expected the new text behind it")
    if edited.strip():
        chat.say_again(edited)


def _clear(chat: Chat, _: str) -> None:
    n = len(chat.talk.history)
    chat.talk.history.clear()
    chat.screen.note(f"forgotten: {n} exchange{'' if n == 1 else 's'}")


def _save(chat: Chat, text: str) -> None:
    words = _words("/save", text)
    states = "--state" in words
    names = [word for word in words if word != "--state"]
    if len(names) != 1:
        raise ParameterError(f"/save: found {len(names)} names, expected FILE, or --state FILE")
    path = os.path.expanduser(names[0])
    chat.save(path, states=states)


def _load(chat: Chat, text: str) -> None:
    words = _words("/load", text)
    if len(words) != 1:
        raise ParameterError(f"/load: found {len(words)} names, expected FILE")
    chat.load(os.path.expanduser(words[0]))


def _stats(chat: Chat, _: str) -> None:
    chat.screen.out(chat.statistics())


def _model(chat: Chat, _: str) -> None:
    chat.screen.out(chat.about())


def _tools(chat: Chat, _: str) -> None:
    if chat.calling is None:
        raise ParameterError("/tools: there are none; clarion chat --mcp COMMAND starts a server of tools")
    tools, always = chat.calling.tools, chat.calling.always
    rows = []
    for tool in tools.descriptions:
        name, about = tool["function"]["name"], brief(tool["function"]["description"])
        asks = "always called" if name in always else "asks first"
        rows.append(f"{name} ({tools.servers[name]}, {asks}): {about}")
    chat.screen.out("\n".join(rows) or "the servers have no tools")


def _quit(chat: Chat, _: str) -> None:
    chat.over = True


COMMANDS: Final = (
    Command(("help", "h", "?", "commands"), "", "lists the commands", _help),
    Command(("system",), "TEXT", "what the system says first; none: nothing", _system),
    Command(("undo", "back"), "", "takes the last exchange back", _undo),
    Command(("redo",), "", "brings back what was taken back last", _redo),
    Command(("regenerate", "retry", "regen"), "", "answers again", _regenerate),
    Command(("edit",), "[TEXT]", "changes what you said last, and answers that", _edit),
    Command(
        ("set", "options"),
        "[NAME VALUE]",
        "changes a sampling option (default: back); alone shows all",
        _set,
    ),
    Command(("think", "reasoning"), "show|fold|hide", "what is shown of reasoning", _think),
    Command(("stats", "usage"), "", "tokens, speeds and how full the context is", _stats),
    Command(("save",), "[--state] FILE", "saves conversation and options; also what was computed", _save),
    Command(("load",), "FILE", "goes on with what was saved", _load),
    Command(("clear", "reset", "new"), "", "forgets all but what the system says", _clear),
    Command(("model", "info", "show"), "", "which file, and how long its context is", _model),
    Command(("tools",), "", "what the model may call", _tools),
    Command(("quit", "exit", "bye", "q"), "", "leaves", _quit),
)
_BY_NAME: Final = {name: command for command in COMMANDS for name in command.names}


def brief(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "\u2026"


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParameterError(f"{name}: found {text[:40]!r}: {str(error).lower()}") from None
