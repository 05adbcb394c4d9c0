"""What else runs on this machine: measurements beside it are worth little."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from clarion.host import kernel_files

_STAT = Path("/proc/stat")
BUSY_SHARE = 0.1  # of the processors, taken by others: speeds are that much too low, and threads misjudged


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Seconds until now.

    Attributes:
        wall: of the clock.
        own: that this process had processors for, all threads together.
        busy: that somebody had this process's processors for; None where the system does not say.
    """

    wall: float
    own: float
    busy: float | None

    @classmethod
    def now(cls, processors: Collection[int], stat: Path = _STAT) -> Snapshot:
        """What the kernel has counted; `processors` are those that this process may use."""
        return cls(time.perf_counter(), time.process_time(), _busy(processors, stat))


def others(before: Snapshot, after: Snapshot) -> float | None:
    """How many processors others had meanwhile, on average; None where the system does not say."""
    wall = after.wall - before.wall
    if before.busy is None or after.busy is None or wall <= 0:
        return None
    return max(0.0, (after.busy - before.busy - (after.own - before.own)) / wall)


def _busy(processors: Collection[int], stat: Path) -> float | None:
    """Seconds in user, nice, system and interrupts, and those that a hypervisor took."""
    ticks, found = 0, 0
    for line in (kernel_files.text(stat) or "").splitlines():
        name, *fields = line.split()
        number = kernel_files.number(name.removeprefix("cpu"))
        if not name.startswith("cpu") or number not in processors:
            continue
        counts = [kernel_files.number(count) for count in fields[:8]]
        if len(counts) < 8 or None in counts:
            return None
        user, nice, system, _, _, interrupts, soft, stolen = (count or 0 for count in counts)
        ticks += user + nice + system + interrupts + soft + stolen
        found += 1
    # A system that hides its processors shows none of them, or none that ever worked.
    return ticks / os.sysconf("SC_CLK_TCK") if found == len(processors) and ticks else None
