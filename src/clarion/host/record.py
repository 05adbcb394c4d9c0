"""What was measured of this machine, kept for later runs in the user's cache directory.

One file for each processor and native module. A file that is damaged, or of a machine that this one no longer
is, is ignored, and a note says so: `damaged-record`, `stale-record`.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clarion.folders import cache_folder
from clarion.host.hierarchy import hierarchy
from clarion.host.isa import processor_name
from clarion.host.threads import default_threads, most_threads

DAMAGED, STALE = "damaged-record", "stale-record"
_VERSION = 1  # of what is measured and how
_MOST_BYTES = 1 << 20
_GOOD_ENOUGH = 0.97  # of the best speed; more threads for less than that only take cores from others


@dataclass(frozen=True, slots=True)
class Rates:
    """What a number of threads reaches in a second.

    Attributes:
        bandwidth: bytes read from memory, in a loop that does nothing else.
        multiply: products of bytes within registers, likewise.
        generation: bytes of weights that products with one token read.
        prompt: products of bytes that products with many tokens compute.
    """

    threads: int
    bandwidth: float
    multiply: float
    generation: float
    prompt: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What a record is true of."""

    processor: str
    module: str
    cores: int
    most_threads: int


@dataclass(frozen=True, slots=True)
class Record:
    """Rates of several numbers of threads; `date` is the day of the measurement."""

    machine: Machine
    date: str
    rates: tuple[Rates, ...]

    @property
    def best_threads(self) -> int:
        """The fewest threads that generate and read prompts about as fast as any: by the product of both."""
        speeds = {rates.threads: math.sqrt(rates.generation * rates.prompt) for rates in self.rates}
        enough = _GOOD_ENOUGH * max(speeds.values())
        return min(threads for threads, speed in speeds.items() if speed >= enough)

    def of(self, threads: int) -> Rates | None:
        """What so many threads reach, if that was measured."""
        return next((rates for rates in self.rates if rates.threads == threads), None)


def this_machine(module: str) -> Machine:
    """What is measured here with a native module is true of this."""
    return Machine(processor_name(), module, len(hierarchy().cores), most_threads())


def path(machine: Machine) -> Path:
    """Where the record of a machine is kept."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine.processor} {machine.module}".lower()).strip("-")
    return cache_folder() / "clarion" / f"machine-{name[:120]}.json"


def store(record: Record) -> Path:
    """Writes the record in place of an earlier one, all of it or nothing. Raises OSError."""
    import tempfile

    target = path(record.machine)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": _VERSION, **asdict(record)}, indent=1)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, target)
    except OSError:
        os.unlink(name)
        raise
    return target


def stored(module: str) -> tuple[Record | None, str]:
    """This machine's record, if there is one that holds; and a note if there is one that does not."""
    machine = this_machine(module)
    try:
        with open(path(machine), encoding="utf-8") as file:
            content = json.loads(file.read(_MOST_BYTES))
        if content["version"] != _VERSION or content["machine"] != asdict(machine):
            return None, STALE
        return _record(machine, content), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, DAMAGED


def best_threads(module: str) -> int:
    """The best number of threads by the record, else one for each physical core that the quota pays for."""
    record, _ = stored(module)
    return default_threads() if record is None else record.best_threads


def _record(machine: Machine, content: dict[str, Any]) -> Record:
    """Raises ValueError, KeyError or TypeError for what `store` would not have written."""
    rates = tuple(Rates(**entry) for entry in content["rates"])
    for entry in rates:
        if type(entry.threads) is not int or not 1 <= entry.threads <= machine.most_threads:
            raise ValueError(f"threads: found {entry.threads!r}, expected 1 to {machine.most_threads}")
        for value in (entry.bandwidth, entry.multiply, entry.generation, entry.prompt):
            if type(value) is not float or not 0 < value < math.inf:
                raise ValueError(f"found the rate {value!r}, expected a positive number")
    if not rates or not isinstance(content["date"], str):
        raise ValueError("found no rates or no date")
    return Record(machine, content["date"], rates)
