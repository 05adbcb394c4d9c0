"""The machine's hierarchy, detected once: cores, caches, memory nodes, huge pages.

Only what this process may use counts: its affinity mask, which a container's cpuset narrows. What cannot be
found out is assumed, and `caches_from` and None say so.
"""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from clarion._native import files
from clarion.host import caches, kernel_files
from clarion.host.caches import Cache

_CPUS = Path("/sys/devices/system/cpu")
_NODES = Path("/sys/devices/system/node")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of memory and the processors that are near to it.

    Attributes:
        number: as the system numbers it.
        processors: that this process may run on.
        whole: whether these are all that are near.
    """

    number: int
    processors: frozenset[int]
    whole: bool


@dataclass(frozen=True, slots=True)
class HugePages:
    """Transparent huge pages: `use` is "always", "madvise" (where a program asks) or "never"."""

    size: int
    use: str


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """What computes and what it reads from.

    Attributes:
        processors: that this process may run on, as the system numbers them.
        cores: the same, grouped by physical core: more than one in a group are hyperthreads.
        caches: of one core, from the first level on.
        caches_from: "/sys", "CPUID", "sysctl", or "assumed".
        nodes: of memory with some of the processors; one where the system names none.
        huge_pages: None where the system has none.
        fetches_near: weights are best fetched into the first cache at once (native/machine/tiling.cpp).
    """

    processors: frozenset[int]
    cores: tuple[frozenset[int], ...]
    caches: tuple[Cache, ...]
    caches_from: str
    nodes: tuple[Node, ...]
    huge_pages: HugePages | None
    fetches_near: bool = False

    @property
    def cache_bytes(self) -> dict[str, int]:
        """Bytes of the first two levels that each core has to itself."""
        return {f"l{cache.level}": cache.for_each_core for cache in self.caches[:2]}

    @property
    def machine_options(self) -> dict[str, int]:
        """What the native `Machine` wants to know of a core."""
        return {**self.cache_bytes, "fetch_near": self.fetches_near}


@functools.cache
def hierarchy() -> Hierarchy:
    """This machine's, looked up at the first call."""
    usable = usable_processors()
    found, source = caches.detect(usable)
    near = caches.fetches_near(files.cpuid)
    return Hierarchy(usable, physical_cores(usable), found, source, nodes(usable), huge_pages(), near)


def usable_processors() -> frozenset[int]:
    """The affinity mask, or all where the system has none."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(usable: frozenset[int], root: Path = _CPUS) -> tuple[frozenset[int], ...]:
    """The usable processors, hyperthreads of one core together; each alone where that is unknown."""
    if platform.system() == "Darwin":
        from clarion.host.sysctl import sysctl

        # Efficiency cores would hold the others up: work is shared evenly.
        n = sysctl("hw.perflevel0.physicalcpu") or sysctl("hw.physicalcpu") or len(usable)
        return tuple(frozenset({processor}) for processor in sorted(usable)[: max(1, n)])
    cores: set[frozenset[int]] = set()
    for processor in usable:
        siblings = kernel_files.processors(root / f"cpu{processor}/topology/thread_siblings_list")
        cores.add((siblings or frozenset()) & usable | {processor})
    return tuple(sorted(cores, key=min))


def nodes(usable: frozenset[int], root: Path = _NODES) -> tuple[Node, ...]:
    """The NUMA nodes that have some of the processors."""
    found = []
    for number in sorted(kernel_files.processors(root / "online") or ()):
        near = kernel_files.processors(root / f"node{number}/cpulist") or frozenset()
        if near & usable:
            found.append(Node(number, near & usable, near <= usable))
    return tuple(found) or (Node(0, usable, True),)


def huge_pages(root: Path = _HUGE_PAGES) -> HugePages | None:
    """Transparent huge pages for memory that a program asks for."""
    size = kernel_files.integer(root / "hpage_pmd_size")
    for word in (kernel_files.text(root / "enabled") or "").split():
        if size and word in ("[always]", "[madvise]", "[never]"):
            return HugePages(size, word[1:-1])
    return None
