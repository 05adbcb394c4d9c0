"""How many threads may compute at once: cores that this process may use, not more than its quota pays for."""

from __future__ import annotations

from pathlib import Path

from clarion.host import kernel_files
from clarion.host.hierarchy import hierarchy

MOST_THREADS = 1024  # of a pool, as native/machine/pool.h has it
_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")
_DEEPEST = 64  # groups within one another


def default_threads() -> int:
    """One for each physical core within the affinity mask, at most the quota's whole processors."""
    return min(len(hierarchy().cores), most_threads())


def most_threads() -> int:
    """Processors within the affinity mask, at most the whole processors of the control group's quota."""
    quota = cpu_quota()
    usable = len(hierarchy().processors)
    return usable if quota is None else max(1, min(usable, int(quota)))


def cpu_quota(root: Path = _CGROUPS, process: Path = _PROCESS) -> float | None:
    """Processors that the control groups of this process grant it, None where they set no limit."""
    quotas = []
    for group in control_groups("cpu", root, process):
        quota = _v2_quota(group / "cpu.max") or _v1_quota(group)
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def control_groups(controller: str, root: Path = _CGROUPS, process: Path = _PROCESS) -> list[Path]:
    """The folders of this process's group and of its ancestors: version 2, or a controller of version 1."""
    folders: list[Path] = []
    for line in (kernel_files.text(process) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part]
        if (controllers and controller not in controllers.split(",")) or ".." in parts or "\0" in path:
            continue
        base = root / controller if controllers else root
        # Inside a container the path may be the host's: then only the root of the mount exists.
        depths = range(min(len(parts), _DEEPEST), -1, -1)
        folders += [folder for n in depths if _is_folder(folder := base.joinpath(*parts[:n]))]
    return folders


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _v2_quota(path: Path) -> float | None:
    quota, _, period = (kernel_files.text(path) or "").partition(" ")
    return _quotient(quota, period)


def _v1_quota(group: Path) -> float | None:
    quota, period = (kernel_files.text(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    return _quotient(quota, period)


def _quotient(quota: str, period: str) -> float | None:
    """None for "max", -1 and whatever else is no limit."""
    numbers = [kernel_files.number(digits) for digits in (quota, period)]
    return numbers[0] / numbers[1] if numbers[0] and numbers[1] else None
