"""Progress bars on standard error, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with bytes done and bytes in all: a bar with the rate and the time left."""
    with _progress(what, in_bytes=True) as update:
        yield update


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """The same for pieces of work that are not bytes."""
    with _progress(what, in_bytes=False) as update:
        yield update


@contextmanager
def stages(*, in_bytes: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """The same for work in several stages, of bytes or not, whose names it is called with first."""
    with ExitStack() as stack:
        bars: dict[str, Callable[[int, int], None]] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in bars:
                stack.close()
                bars[what] = stack.enter_context(_progress(what, in_bytes=in_bytes))
            bars[what](done, total)

        yield update


@contextmanager
def _progress(what: str, *, in_bytes: bool) -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
