"""From the words of a command line to those that the command's parser reads.

click takes `-hf` for `-h -f`, and `-ngl 99` for a flag and a file. So the words are gone through here first:
a word with one dash is one flag, however long. Flags of the command itself stay as they are, those of other
programs become what `foreign` says, and whatever is left is an error that names what comes near.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from clarion.cli.prompt import check_utf8
from clarion.cli.sections import FILE

if TYPE_CHECKING:
    from clarion.cli.foreign import Flag

_NUMBERED = re.compile(r"(-[A-Za-z]+)([+-]?[0-9][0-9.,]*)")  # -ngl99
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
    left, translated, notes = deque(words), list[str](), list[str]()
    while left:
        word = left.popleft()
        if word == "--":
            return [*translated, word, *left], notes
        if word == "-" or not word.startswith("-"):
            translated.append(word)
            continue
        name, given = _split(word)
        if given is None and name not in own and (glued := _NUMBERED.fullmatch(word)):  # -ngl99
            from clarion.cli.foreign import flags

            flag = flags(command.name or "").get(glued[1])
            if glued[1] in own or (flag is not None and flag.n_values == 1):
                name, given = glued[1], glued[2]
        if (option := own.get(name)) is None:
            theirs, note = _foreign(word, name, given, left, own, context)
            translated += theirs
            notes += note
        elif option.is_flag:
            if given is not None:
                raise click.BadOptionUsage(name, f"Option {name!r} does not take a value.", context)
            translated.append(name)
        else:
            values = [given] if given is not None else _take(name, option.nargs, left, context)
            # Names of files need not be UTF-8; of the prompt, which may stand elsewhere, the command says so.
            if (
                option.name != "prompt"
                and option.type is not FILE
                and not re.search("FILE|MODEL", option.metavar or "")
            ):
                for value in values:
                    check_utf8(name, value)
            translated += [name, *values]
    return translated, notes


def _foreign(
    word: str,
    name: str,
    given: str | None,
    left: deque[str],
    own: Mapping[str, click.Option],
    context: click.Context,
) -> tuple[list[str], list[str]]:
    """What a flag of another program becomes, and what there is to say of it."""
    from clarion.cli.foreign import flags

    known = flags(context.command.name or "")
    flag = known.get(name)
    if flag is None:
        raise click.UsageError(_unknown(word, name, own, known, context), context)
    values = _values(name, flag, given, left, context)
    if given is None and any(value in own or value in known for value in values):
        raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.", context)
    if flag.numbers is not None and not all(_is_number(v) or v in flag.numbers.split() for v in values):
        others = "".join(f" or {word!r}" for word in flag.numbers.split())
        raise click.BadOptionUsage(
            name, f"Option {name!r} requires a number{others}, found {values[0]!r}.", context
        )
    off = flag.is_off(values)
    if flag.refusal and not off:
        raise click.UsageError(f"{name}: {flag.refusal}", context)
    words = flag.own_words(name, values, context)
    for ours in words:
        if ours.startswith("--") and ours not in own and ours not in values:
            raise click.UsageError(f"{name}: {context.command_path} has no {ours}", context)
    return words, [f"{name}: {flag.note}"] if flag.note and not off else []


def _split(word: str) -> tuple[str, str | None]:
    """The flag, and the value that stands in the same word. As elsewhere, --n_predict is --n-predict."""
    if attached := _ATTACHED.fullmatch(word):
        return attached[1], attached[2]
    name, equals, value = word.partition("=")
    return name.replace("_", "-") if name.startswith("--") else name, value if equals else None


def _values(name: str, flag: Flag, given: str | None, left: deque[str], context: click.Context) -> list[str]:
    if given is not None:
        if not flag.n_values and not flag.choices:
            raise click.BadOptionUsage(name, f"Option {name!r} does not take a value.", context)
        return [given]
    if flag.choices:
        return [left.popleft()] if left and left[0].lower() in flag.choices else []
    return _take(name, flag.n_values, left, context)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9.]+([,/][0-9.]+)*", value) is not None


def _take(name: str, n: int, left: deque[str], context: click.Context) -> list[str]:
    if len(left) < n:
        raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.", context)
    return [left.popleft() for _ in range(n)]


def _unknown(
    word: str,
    name: str,
    own: Mapping[str, click.Option],
    known: Mapping[str, Flag],
    context: click.Context,
) -> str:
    from clarion.cli.suggest import nearest

    if " " in word:
        return f"{word[:40]!r} is no option: a text that begins with a dash stands after -p, or after --"
    meant = nearest(name, [*own, "--version", *known])
    hint = f"; did you mean {meant}?" if meant else ";"
    return f"No such option: {word}{hint} {context.command_path} --help lists them"
