"""The machine that measures, for the heads of tables: which it is, and who else used it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from clarion.host import processor_name
from clarion.host.hierarchy import hierarchy
from clarion.host.load import BUSY_SHARE, Snapshot, others

T = TypeVar("T")


def processor() -> str:
    """The processor's name, its number where the name is that of many, and the cores that may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    words = [processor_name()]
    if "cpu family" in facts and "model" in facts:
        words.append(f"family {facts['cpu family']} model {facts['model']}")
    n = len(hierarchy().cores)
    return ", ".join([*words, f"{n} core" + "s" * (n > 1)])


def _now() -> Snapshot:
    """With the children of this process that have ended."""
    found, times = Snapshot.now(hierarchy().processors), os.times()
    return replace(found, own=found.own + times.children_user + times.children_system)


def watched(work: Callable[[], T]) -> tuple[T, float | None]:
    """What some work gives, and how many processors other programs had meanwhile; None where the system does
    not say."""
    before = _now()
    found = work()
    return found, others(before, _now())


def disturbance(found: Iterable[float | None]) -> str:
    """What other programs had during measurements, in words."""
    known = [n for n in found if n is not None]
    if not known:
        return "the system does not say what other programs ran meanwhile"
    n = len(hierarchy().processors)
    words = f"other programs had {min(known):.2f} to {max(known):.2f} of {n} processors meanwhile"
    return f"disturbed: {words}" if max(known) > BUSY_SHARE * n else words
