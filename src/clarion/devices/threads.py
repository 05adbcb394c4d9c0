"""How many threads may compute at once: cores that this process may use, not more than its quota pays for."""

from __future__ import annotations

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """Physical cores within the affinity mask, at most the whole processors of the control group's quota."""
    quota = cpu_quota()
    cores = physical_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def physical_cores(cpus: Path = _CPUS) -> int:
    """Cores among the processors that this process may run on; hyperthreads of one core count once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            cores.add((cpus / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def cpu_quota(root: Path = _CGROUPS, process: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors that the control groups of this process grant it, None where they set no limit."""
    quotas = []
    for group in control_groups("cpu", root, process):
        quota = _v2_quota(group / "cpu.max") or _v1_quota(group)
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def control_groups(
    controller: str, root: Path = _CGROUPS, process: Path = Path("/proc/self/cgroup")
) -> list[Path]:
    """The folders of this process's group and of its ancestors: version 2, or a controller of version 1."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's: then only the root of the mount exists.
        while folder != base.parent:
            if folder.is_dir():
                folders.append(folder)
            folder = folder.parent
    return folders


def _v2_quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _v1_quota(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError):
        return None
