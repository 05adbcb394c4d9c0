"""From the words of a command line to those that the command's parser reads.

click takes `-hf` for `-h -f`, and `-ngl 99` for a flag and a file. So the words are gone through here first:
a word with one dash is one flag, however long. Flags of the command itself stay as they are, those of other
programs become what `foreign` says, and whatever is left is an error that names what comes near.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence

import click

from clarion.cli.foreign import Flag, flags
from clarion.cli.suggest import nearest

_ATTACHED = re.compile(r"(-[A-Za-z])([+-]?[0-9][0-9.,]*)")  # -n20


def translate(
    command: click.Command, context: click.Context, words: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The words for the command's own parser, and notes on those that change nothing here.

    Raises:
        click.UsageError: a flag is unknown, or asks for what is not implemented.
    """
    own = {
        name: option
        for option in command.get_params(context)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    known = flags(command.name or "")
    left, translated, notes = deque(words), list[str](), list[str]()
    while left:
        word = left.popleft()
        if word == "--":
            return [*translated, word, *left], notes
        if word == "-" or not word.startswith("-"):
            translated.append(word)
            continue
        name, given = _split(word, own, known)
        if (option := own.get(name)) is not None:
            if option.is_flag:
                translated.append(name if given is None else f"{name}={given}")
                continue
            values = [given] if given is not None else []
            while len(values) < option.nargs and left:
                values.append(left.popleft())
            translated += [name, *values]
        elif (flag := known.get(name)) is not None:
            values = _values(name, flag, given, left)
            if flag.refusal and not flag.is_off(values):
                raise click.UsageError(f"{name}: {flag.refusal}", context)
            if flag.note and not flag.is_off(values):
                notes.append(f"{name}: {flag.note}")
            for ours in flag.own_words(name, values, context):
                if ours.startswith("--") and ours not in own and ours not in values:
                    raise click.UsageError(f"{name}: {context.command_path} has no {ours}", context)
                translated.append(ours)
        else:
            raise click.UsageError(_unknown(word, name, own, known, context), context)
    return translated, notes


def _split(word: str, own: Mapping[str, click.Option], known: Mapping[str, Flag]) -> tuple[str, str | None]:
    """The flag, and the value that stands in the same word. As elsewhere, --n_predict is --n-predict."""
    name, equals, value = word.partition("=")
    if name.startswith("--"):
        name = name.replace("_", "-")
    elif attached := _ATTACHED.fullmatch(word):
        name, number = attached.groups()
        if (name in own and not own[name].is_flag) or (name in known and known[name].n_values):
            return name, number
        return word, None
    return name, value if equals else None


def _values(name: str, flag: Flag, given: str | None, left: deque[str]) -> list[str]:
    if given is not None:
        if not flag.n_values and not flag.choices:
            raise click.UsageError(f"{name}: found the value {given!r}, expected none")
        return [given]
    if flag.choices:
        return [left.popleft()] if left and left[0].lower() in flag.choices else []
    if len(left) < flag.n_values:
        raise click.UsageError(f"Option {name!r} requires an argument.")
    return [left.popleft() for _ in range(flag.n_values)]


def _unknown(
    word: str,
    name: str,
    own: Mapping[str, click.Option],
    known: Mapping[str, Flag],
    context: click.Context,
) -> str:
    if " " in word:
        return f"{word[:40]!r} is no option: a text that begins with a dash stands after -p, or after --"
    meant = nearest(name, [*own, *(other for other, flag in known.items() if flag.own)])
    hint = f"; did you mean {meant}?" if meant else ";"
    return f"No such option: {word}{hint} {context.command_path} --help lists them"
