"""How much memory there is, and how it is cached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clarion.devices.threads import control_groups


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes, the narrower of the machine's and the control group's."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache of the first processor."""

    level: int
    kind: str  # "Data", "Instruction" or "Unified"
    size: int  # bytes
    shared_by: str  # processors, as the kernel lists them


def memory(meminfo: Path = Path("/proc/meminfo")) -> Memory:
    """The memory that this process can have."""
    values = {}
    for line in meminfo.read_text().splitlines():
        key, _, value = line.partition(":")
        values[key] = int(value.split()[0]) * 1024
    total, available = values["MemTotal"], values.get("MemAvailable", values["MemFree"])
    for group in control_groups("memory"):
        limit = _integer(group / "memory.max") or _integer(group / "memory.limit_in_bytes")
        used = _integer(group / "memory.current") or _integer(group / "memory.usage_in_bytes")
        if limit is not None and limit < total:
            total, available = limit, min(available, max(0, limit - (used or 0)))
    return Memory(total, available)


def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> list[Cache]:
    """The first processor's caches, as far as the kernel describes them."""
    found = []
    for index in sorted(folder.glob("index*")):
        try:
            size = (index / "size").read_text().strip()
            found.append(
                Cache(
                    level=int((index / "level").read_text()),
                    kind=(index / "type").read_text().strip(),
                    size=int(size.rstrip("KM")) * {"K": 1024, "M": 1024**2}.get(size[-1], 1),
                    shared_by=(index / "shared_cpu_list").read_text().strip(),
                )
            )
        except (OSError, ValueError):
            continue
    return found


def data_caches() -> dict[str, int]:
    """Bytes of the first and the second level as the native `Machine` takes them, of those that are known."""
    data = [cache for cache in caches() if cache.kind != "Instruction"]
    return {f"l{cache.level}": cache.size for cache in data if cache.level <= 2}


def _integer(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
