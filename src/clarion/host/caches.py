"""The data caches of a processor: from the kernel's files, else from CPUID, else from macOS's sysctl."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clarion.host import kernel_files

_CPUS = Path("/sys/devices/system/cpu")
_LEVELS = range(1, 5)
_SMALLEST, _LARGEST = 1 << 10, 1 << 32

Cpuid = Callable[[int, int], tuple[int, int, int, int] | None]
Sysctl = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache that holds data.

    Attributes:
        level: 1 is the nearest to the core.
        size: bytes.
        line: bytes of a line.
        cores: that share it; hyperthreads of one core count once.
    """

    level: int
    size: int
    line: int
    cores: int

    @property
    def for_each_core(self) -> int:
        """Bytes that a core has to itself when all of them compute."""
        return self.size // self.cores


# What the smallest processors with wide vectors have had since 2013.
ASSUMED = (Cache(1, 32 << 10, 64, 1), Cache(2, 256 << 10, 64, 1))


def from_kernel(processor: int, root: Path = _CPUS) -> tuple[Cache, ...]:
    """The caches of one processor, as Linux describes them in /sys."""
    found: dict[int, Cache] = {}
    siblings = kernel_files.processors(root / f"cpu{processor}/topology/thread_siblings_list")
    threads = len(siblings or {processor})
    for index in sorted((root / f"cpu{processor}/cache").glob("index[0-9]")):
        level, size = kernel_files.integer(index / "level"), kernel_files.size(index / "size")
        if kernel_files.text(index / "type") not in ("Data", "Unified") or level is None or size is None:
            continue
        shared_by = kernel_files.processors(index / "shared_cpu_list") or frozenset({processor})
        line = kernel_files.integer(index / "coherency_line_size") or 64
        found[level] = Cache(level, size, line, max(1, len(shared_by) // threads))
    return _plausible(found)


def from_cpuid(cpuid: Cpuid) -> tuple[Cache, ...]:
    """The caches of the processor that runs this: leaf 4 (Intel) or 0x8000001D (AMD), which have one layout.

    Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
    """
    extended = cpuid(0x80000000, 0)
    topology = cpuid(0x8000001D, 0) if extended is not None and extended[0] >= 0x8000001D else None
    leaf = 0x8000001D if topology is not None and topology[0] & 31 else 4
    smt = cpuid(0x0B, 0)
    threads = max(1, smt[1] & 0xFFFF) if smt is not None else 1
    found: dict[int, Cache] = {}
    for subleaf in range(16):
        registers = cpuid(leaf, subleaf)
        if registers is None or registers[0] & 31 == 0:
            break
        eax, ebx, ecx, _ = registers
        if eax & 31 not in (1, 3):  # data, unified
            continue
        line, partitions, ways = (ebx & 0xFFF) + 1, (ebx >> 12 & 0x3FF) + 1, (ebx >> 22) + 1
        shared_by = (eax >> 14 & 0xFFF) + 1
        level = eax >> 5 & 7
        size = line * partitions * ways * (ecx + 1)
        found[level] = Cache(level, size, line, max(1, shared_by // threads))
    return _plausible(found)


def fetches_near(cpuid: Cpuid) -> bool:
    """Whether this is a processor that fetches into its first cache faster than into its second: Zen 5 (AMD's
    family 26), and not Zen 4 (25), where that takes twice as long; others were not measured.

    Sources: as `from_cpuid`.
    """
    vendor, version = cpuid(0, 0), cpuid(1, 0)
    if vendor is None or version is None:
        return False
    name = b"".join(vendor[i].to_bytes(4, "little") for i in (1, 3, 2))
    family = (version[0] >> 8 & 15) + (version[0] >> 20 & 255)
    return name == b"AuthenticAMD" and family == 26


def from_sysctl(sysctl: Sysctl) -> tuple[Cache, ...]:
    """The caches of the performance cores, as macOS names them."""
    found: dict[int, Cache] = {}
    line = sysctl("hw.cachelinesize") or 64
    for level, name in ((1, "l1dcachesize"), (2, "l2cachesize"), (3, "l3cachesize")):
        size = sysctl(f"hw.perflevel0.{name}") or sysctl(f"hw.{name}")
        if size is not None:
            cores = sysctl(f"hw.perflevel0.cpusperl{level}") or 1
            found[level] = Cache(level, size, line, max(1, cores))
    return _plausible(found)


def detect(processors: frozenset[int]) -> tuple[tuple[Cache, ...], str]:
    """The caches of these processors, and where they are known from: /sys, CPUID, sysctl or assumed.

    Where cores differ the smaller caches count: a tile has to fit all of them. Kinds of cores are numbered
    one after the other, so the first and the last processor show the largest and the smallest.
    """
    first, last = from_kernel(min(processors)), from_kernel(max(processors))
    if first and last:
        smaller = {cache.level: cache for cache in last}
        both = (min(cache, smaller.get(cache.level, cache), key=lambda c: c.for_each_core) for cache in first)
        return tuple(both), "/sys"
    if platform.system() == "Darwin":
        from clarion.host.sysctl import sysctl

        known = from_sysctl(sysctl)
        if known:
            return known, "sysctl"
    from clarion._native import files

    known = from_cpuid(files.cpuid)
    return (known, "CPUID") if known else (ASSUMED, "assumed")


def _plausible(found: dict[int, Cache]) -> tuple[Cache, ...]:
    """The levels from the first on that could exist; none without the first two, which tiles need."""
    caches: list[Cache] = []
    for level in _LEVELS:
        cache = found.get(level)
        if cache is None or not _SMALLEST <= cache.for_each_core <= cache.size <= _LARGEST:
            break
        caches.append(cache)
    return tuple(caches) if len(caches) >= 2 else ()
