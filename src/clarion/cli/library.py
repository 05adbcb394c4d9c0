"""`clarion pull`, `list` and `rm`: models by name."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.progress import stages

if TYPE_CHECKING:
    from clarion.library import Found, Report
    from clarion.library.remove import Removal


@contextmanager
def reporting() -> Iterator[Report]:
    """Who hears of a download: a bar for each file on a terminal, and lines on standard error."""
    from clarion.library import Report

    try:
        with stages(in_bytes=True) as update:
            yield Report(update, options.warn)
    except KeyboardInterrupt:
        options.warn("interrupted; what has come stays, and the same command goes on with it")
        raise


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.as_json
@options.debug
def pull(names: tuple[str, ...], as_json: bool) -> None:
    """Fetches models, as far as they are not here, and prints where they lie.

    NAME is OWNER/NAME or OWNER/NAME:QUANT of Hugging Face's hub, NAME or NAME:TAG of Ollama's library, or the
    address of a .gguf file. Without QUANT it is Q4_K_M, or what comes nearest. What was interrupted goes on
    where it stopped. HF_TOKEN opens what is restricted.
    """
    from clarion.library import pull as fetch

    reports = []
    for name in names:
        with reporting() as report:
            found = fetch(name, report)
        reports.append(_plain(found))
        if not as_json:
            print(found.path, flush=True)
            name = options.printable(found.name)
            options.warn(f"{name}, {_size(found)}: clarion run {name}")
    if as_json:
        print(json.dumps(reports))


@click.command("list")
@options.as_json
@options.debug
def list_(as_json: bool) -> None:
    """Lists the models on this machine: name, size, quantisation, place and day.

    Those of the hub's cache and of Clarion's own folder, and those that Ollama, LM Studio and llama.cpp keep.
    """
    from clarion.library import every

    models = every()
    if as_json:
        print(json.dumps([_plain(found) for found in models]))
        return
    if not models:
        options.warn("there are no models on this machine; clarion pull NAME fetches one")
        return
    rows = [("NAME", "SIZE", "QUANT", "PLACE", "DAY")]
    for found in models:
        day = time.strftime("%Y-%m-%d", time.localtime(found.modified))
        rows.append((options.printable(found.name), _size(found), _quant(found), found.source, day))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = row[1].rjust(widths[1])
        print("  ".join(cells).rstrip())


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also from folders of other programs.")
@options.debug
def rm(names: tuple[str, ...], yes: bool, force: bool) -> None:
    """Removes models from this machine, after it has shown which and has asked.

    Models of Ollama, LM Studio and llama.cpp are theirs: they are removed with --force alone. Files that
    another model has too stay.
    """
    from clarion.gguf.texts import size_text
    from clarion.library.remove import removal

    removals = [removal(name, force=force) for name in names]
    for each in removals:
        _show(each)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("nothing was removed: there is nobody to ask; -y removes without asking")
        click.confirm("Remove?", abort=True, err=True)
    for each in removals:
        sizes = {path: path.stat().st_size for path in map(type(each.found.path).resolve, each.found.parts)}
        each.run()
        freed = sum(size for path, size in sizes.items() if not path.exists())
        options.warn(f"removed {options.printable(each.found.name)}, {size_text(freed)}")


def _show(removal: Removal) -> None:
    found = removal.found
    options.say(f"{options.printable(found.name)}  {_size(found)}  {found.source}")
    for part in found.parts:
        options.say(f"  {options.printable(str(part))}")


def _plain(found: Found) -> dict[str, Any]:
    """A model, for programs."""
    return {
        "name": found.name,
        "path": str(found.path),
        "parts": [str(part) for part in found.parts],
        "bytes": found.bytes,
        "quant": _quant(found),
        "source": found.source,
        "modified": found.modified,
    }


def _size(found: Found) -> str:
    from clarion.gguf.texts import size_text

    return size_text(found.bytes)


def _quant(found: Found) -> str:
    """As the name says, else as the file does; nothing for a file that cannot be read."""
    if found.quant:
        return found.quant
    from clarion.errors import ClarionError
    from clarion.evaluate.summary import Summary
    from clarion.gguf import File

    try:
        with File.open(found.path) as file:
            return Summary.of(file).type
    except (ClarionError, OSError):
        return ""
