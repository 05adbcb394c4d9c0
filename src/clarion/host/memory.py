"""How much memory this process can have."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clarion.host import kernel_files
from clarion.host.threads import control_groups


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes, the narrower of the machine's and the control group's."""

    total: int
    available: int


def memory(meminfo: Path = Path("/proc/meminfo"), groups: list[Path] | None = None) -> Memory:
    """The memory of the machine, as far as the control groups of this process grant it.

    Where the system does not say what is available, half of all counts as that.
    """
    values = {}
    for line in (kernel_files.text(meminfo) or "").splitlines():
        key, _, value = line.partition(":")
        number = kernel_files.number(value.strip().removesuffix(" kB"))
        if number is not None:
            values[key] = number * 1024
    total = values.get("MemTotal") or _physical_memory()
    available = min(total, values.get("MemAvailable", values.get("MemFree", total // 2)))
    for group in control_groups("memory") if groups is None else groups:
        limit = _either(group, "memory.max", "memory.limit_in_bytes")
        used = _either(group, "memory.current", "memory.usage_in_bytes")
        if limit is not None and limit < total:
            held = max(0, (used or 0) - _cached_files(group / "memory.stat"))
            total, available = limit, min(available, max(0, limit - held))
    return Memory(total, available)


def _either(group: Path, v2: str, v1: str) -> int | None:
    found = kernel_files.integer(group / v2)
    return kernel_files.integer(group / v1) if found is None else found


def _cached_files(stat: Path) -> int:
    """Bytes of files that a group's use counts and that it can have back."""
    lines = (line.split() for line in (kernel_files.text(stat) or "").splitlines())
    values = {words[0]: kernel_files.number(words[1]) or 0 for words in lines if len(words) == 2}
    return values.get("active_file", 0) + values.get("inactive_file", 0)


def _physical_memory() -> int:
    """What POSIX says; 4 GB where nobody says anything."""
    if hasattr(os, "sysconf"):
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        if pages > 0 and size > 0:
            return pages * size
    return 4 << 30
