"""The sampling options of a chat: what the file recommends, what the command line says, what /set changes.

There is one table of options, that of the command line (`clarion.cli.sampling`), with its checks and errors.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from clarion.cli.sampling import chosen, sampling
from clarion.cli.suggest import nearest
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion import Options

_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
# What the line of the start always shows.
_SHOWN = ("temperature", "top_k", "top_p", "min_p")


class Settings:
    """The options of the next answers.

    Attributes:
        options: as `generate` takes them.
    """

    def __init__(self, of_file: Options, given: Options) -> None:
        """`given`: what the command line says; it goes before `of_file`."""
        _check(given)
        self._given = given
        self.use_file(of_file)

    def use_file(self, of_file: Options) -> None:
        """Begins anew, with what a file recommends."""
        self._of_file: dict[str, Any] = dict(of_file)
        self._base: dict[str, Any] = {**of_file, **self._given}
        self._options = dict(self._base)

    @property
    def options(self) -> Options:
        return self._options.copy()  # type: ignore[return-value]

    def set(self, name: str, text: str) -> None:
        """Changes one option; `default`: as it was at the start.

        Raises:
            ParameterError: there is no such option, or the value is none of its values. Nothing changes.
        """
        option = _find(name)
        key = str(option.name)
        if text.lower() == "default":
            new = {key: self._base[key]} if key in self._base else {}
        else:
            new = dict(chosen({key: _value(option, text)}))
            _check(new)
        self._options.pop(key, None)
        self._options.update(new)

    def replace(self, options: Mapping[str, Any]) -> None:
        """Puts other options in the place of all.

        Raises:
            ParameterError: one of them is wrong. Nothing changes.
        """
        found = dict(options)
        if isinstance(found.get("logit_bias"), Mapping):  # JSON has no names but strings
            found["logit_bias"] = {_token(token): bias for token, bias in found["logit_bias"].items()}
        _check(found)
        self._options = found

    def show(self, name: str) -> str:
        """One option, as `temp 0.8`."""
        key = str(_find(name).name)
        return f"{label(key)} {self._shown(key)}"

    def table(self) -> list[tuple[str, str, str]]:
        """All options: name, value, what it means."""
        return [
            (label(key), self._shown(key), (option.help or "").partition("  [default")[0].rstrip("."))
            for key, option in _table().items()
        ]

    def line(self) -> str:
        """The options that matter most, and those that were chosen, in one line."""
        names = [*_SHOWN, *(key for key in _table() if key in self._options and key not in _SHOWN)]
        if self._options.get("greedy"):
            names = [name for name in names if name not in _SHOWN]
        return ", ".join(f"{label(key)} {self._shown(key)}" for key in names)

    def _shown(self, key: str) -> str:
        from clarion.runtime.sampling import Parameters

        if key not in self._options:
            if key in ("max_tokens", "seed"):
                return "until the end" if key == "max_tokens" else "random"
            return _text(getattr(Parameters(), key))
        value = self._options[key]
        return _text(value) + (" (file)" if self._of_file.get(key, ...) == value else "")


def names() -> list[str]:
    """The options' names, as they are shown."""
    return [label(key) for key in _table()]


def label(key: str) -> str:
    """What an option is called on the command line."""
    option = _table().get(key)
    return key if option is None else _bare(next(o for o in option.opts if o.startswith("--")))


def _find(name: str) -> click.Option:
    wanted = _bare(name)
    for key, option in _table().items():
        if wanted in (_bare(key), *map(_bare, option.opts)):
            return option
    meant = nearest(wanted, [*names(), *map(_bare, _table())])
    hint = f"did you mean {meant}? " if meant else ""
    raise ParameterError(f"{name}: no such option; {hint}/set alone lists them")


def _table() -> dict[str, click.Option]:
    global _TABLE
    if not _TABLE:

        @sampling
        def nothing() -> None:
            """Only its options count."""

        _TABLE = {option.name: option for option in reversed(getattr(nothing, "__click_params__"))}  # noqa: B009
    return _TABLE


_TABLE: dict[str, click.Option] = {}


def _bare(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def _value(option: click.Option, text: str) -> Any:
    """A typed value, as the command line would have it."""
    name = label(str(option.name))
    if option.is_flag:
        if text.lower() not in (*_ON, *_OFF):
            raise ParameterError(f"{name}: found {text!r}, expected on or off")
        return text.lower() in _ON
    if option.multiple:
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise ParameterError(f"{name}: found {text[:40]!r}: {str(error).lower()}") from None
    try:
        return option.type.convert(text, option, None)
    except click.BadParameter:
        kind = "an integer" if option.type is click.INT else "a number"
        raise ParameterError(f"{name}: found {text[:40]!r}, expected {kind}") from None


def _check(options: Mapping[str, Any]) -> None:
    from clarion.runtime.sampling import Parameters

    if options.get("max_tokens") == 0:
        raise ParameterError("max_tokens: found 0, expected 1 or more, or -1 for no limit")
    Parameters.parse(dict(options))  # type: ignore[arg-type]  # what it checks


def _token(name: object) -> object:
    return int(name) if isinstance(name, str) and name.isdecimal() else name


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return " ".join(f"{token}{bias:+g}" for token, bias in value.items()) or "none"
    if isinstance(value, tuple | list):
        return " ".join(repr(item) for item in value) or "none"
    return str(value)
