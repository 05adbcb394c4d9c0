"""The entry point: commands, and what becomes of errors.

Whatever goes wrong ends in one line on standard error and exit code 2; `--debug` shows the traceback as well.
Ctrl-C ends with 130, a closed pipe quietly with 141, as shells count signals.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TextIO

import click

from clarion import __version__
from clarion.cli.exit_codes import BAD_INPUT, BROKEN_PIPE, INTERRUPTED
from clarion.errors import ClarionError

# Where each command is: module and function.
_HOMES = {
    "bench": ("bench", "bench"),
    "chat": ("chat", "chat"),
    "check": ("check", "check"),
    "convert": ("convert", "convert"),
    "doctor": ("doctor", "doctor"),
    "embed": ("embed", "embed"),
    "eval": ("evaluate", "evaluate"),
    "imatrix": ("imatrix", "imatrix"),
    "inspect": ("inspect", "inspect"),
    "list": ("library", "list_"),
    "merge": ("split", "merge"),
    "ps": ("ps", "ps"),
    "pull": ("library", "pull"),
    "quantize": ("quantize", "quantize"),
    "rerank": ("embed", "rerank"),
    "rm": ("library", "rm"),
    "run": ("run", "run"),
    "serve": ("serve", "serve"),
    "show": ("show", "show"),
    "split": ("split", "split"),
    "tokenize": ("tokenize", "tokenize"),
}
_OPTIONS = ("-h", "--help", "--version")
_COMPLETION = "_CLARION_COMPLETE"  # click's variable, set by what it gives to shells


class _Commands(click.Group):
    """Imports a command when it is asked for: a process runs one, and whoever runs it waits."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_HOMES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _HOMES:
            return None
        module, function = _HOMES[name]
        command: click.Command = getattr(import_module(f"clarion.cli.{module}"), function)
        return command

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        from clarion.cli.words import command_line

        try:
            args = command_line(args, _HOMES, _OPTIONS)
        except click.UsageError:
            if not context.resilient_parsing:  # completion takes what there is
                raise
        return super().parse_args(context, args)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, words = super().resolve_command(context, args)
        if command is None or context.resilient_parsing:
            return name, command, words
        from clarion.cli.arguments import translate

        words, notes = translate(command, click.Context(command, context, name), words)
        from clarion.cli.options import warn

        for note in notes:
            warn(note)
        return name, command, words

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(context, name)) for name in self.list_commands(context)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command]
            )


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    subcommand_metavar="COMMAND ...",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Runs language models on the machine you have.

    \b
    clarion run "Once upon a time"             continues a text with the model that comes with Clarion
    clarion run MODEL.gguf "What is a quine?"  answers with a model of yours
    clarion serve MODEL.gguf                   does so over HTTP, as OpenAI's API
    clarion help COMMAND                       lists all that a command can do
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """The `clarion` command."""
    with open(os.devnull, "w") as nowhere:  # in the place of standard error, where the caller closed it
        sys.stdout, sys.stderr = sys.stdout or _Closed(), sys.stderr or nowhere
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
            codecs.register_error("clarion", _as_bytes)
            sys.stdout.reconfigure(errors="clarion")
        code = execute(sys.argv[1:])
        _drop(sys.stderr)
        sys.exit(code)


class _Closed(io.TextIOBase):
    """Standard output where the caller closed it: what is printed would be lost, and is an error."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


def _as_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """Prints bytes of file names that are no UTF-8 as they are, and ? for what the encoding does not have."""
    assert isinstance(error, UnicodeEncodeError)
    characters = map(ord, error.object[error.start : error.end])
    return bytes(c - 0xDC00 if 0xDC80 <= c <= 0xDCFF else ord("?") for c in characters), error.end


def execute(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _invoke(arguments)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop(sys.stdout)
        return BROKEN_PIPE
    except Exception as error:
        if _is_interrupt(error):
            return INTERRUPTED
        if "--debug" in arguments:
            traceback.print_exc()
        with suppress(OSError):  # the exit code says it too
            print(f"clarion: {_line(error)}", file=sys.stderr)
        _drop(sys.stdout)
        return BAD_INPUT


def _is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C became another error on its way, as it does where Python makes a class."""
    seen: list[BaseException] = []  # a cause may be its own
    while error.__cause__ is not None and error not in seen:
        seen.append(error)
        error = error.__cause__
    return isinstance(error, KeyboardInterrupt)


def _invoke(arguments: Sequence[str]) -> int:
    code: object
    if instruction := os.environ.get(_COMPLETION):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "clarion", _COMPLETION, instruction)
    try:
        with cli.make_context("clarion", list(arguments)) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as end:  # of --help and --version
        code = end.exit_code
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _line(error: Exception) -> str:
    """The error in one printable line."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
        if isinstance(error, click.MissingParameter) and error.ctx:
            arguments = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
            text = f"{text.rstrip('.')}: {error.ctx.command_path} {arguments};"
        if isinstance(error, click.MissingParameter | click.exceptions.BadOptionUsage) and error.ctx:
            text += f" {error.ctx.command_path} --help says more"
    elif isinstance(error, OSError) and error.strerror:
        # Files that we write are named in errors of our own.
        text = f"{'standard output' if error.filename is None else error.filename}: {error.strerror}"
    elif isinstance(error, ClarionError | OSError):
        text = str(error)
    else:
        text = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
    # A byte of a file's name that is no UTF-8 is a character from U+DC80 on.
    shown = {c: f"\\x{ord(c) - (0xDC00 if 0xDC80 <= ord(c) <= 0xDCFF else 0):02x}" for c in set(text)}
    text = "".join(c if c.isprintable() else shown[c] for c in " ".join(text.split()))
    return re.sub(r"(?<!\\)\\udc([89a-f][0-9a-f])", r"\\x\1", text)  # as repr shows them


def _drop(stream: TextIO) -> None:
    """Where nobody can read the rest, lets the interpreter's last flush go nowhere: failing again, it would
    make the exit code 120."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
