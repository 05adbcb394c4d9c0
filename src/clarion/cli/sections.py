"""Options in sections: what `--help` shows as one list after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import click


class Option(click.Option):
    """An option, and the section of the help that it stands in."""

    def __init__(self, *arguments: Any, section: str = "Other", **more: Any) -> None:
        if "metavar" not in more:
            more["metavar"] = {int: "N", float: "X"}.get(more.get("type", str))
        super().__init__(*arguments, **more)
        self.section = section


class Command(click.Command):
    """Shows its options in their sections, in the order in which the sections begin."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(context):
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(option, "section", "Other"), []).append(record)
        # click puts --help last; other options without a section go with it.
        rest = sections.pop("Other", [])
        for title, records in [*sections.items(), ("Other", rest)]:
            with formatter.section(title):
                formatter.write_dl(records)


option: Callable[..., Callable[[Any], Any]] = partial(click.option, cls=Option)


class Names(click.Choice[str]):
    """Shows and completes the names that are allowed; whoever takes the value says which it does not know.

    So one list and one error serve the command line and Python, and values may be more than one name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, case_sensitive=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


Complete = Callable[[click.Context, click.Parameter, str], list[Any]]


def completing(names: Callable[[], Iterable[str]]) -> Complete:
    """Lets shells complete names, in capitals or not, that are only looked up then."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        return [name for name in names() if name.lower().startswith(incomplete.lower())]

    return complete


class FileName(click.ParamType[str]):
    """The name of a file, which shells complete."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


FILE = FileName()
