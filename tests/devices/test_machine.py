"""Cores, quotas, memory and caches, from folders like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clarion.devices.memory import caches, memory
from clarion.devices.threads import cpu_quota, default_threads, physical_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_hyperthreads_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}
    write(tmp_path, {f"cpu{cpu}/topology/thread_siblings_list": s + "\n" for cpu, s in siblings.items()})
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "nothing here") == 4


@pytest.mark.parametrize(
    ("files", "process", "expected"),
    [
        ({"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, "0::/a/b\n", 1.5),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "300000 100000"}, "0::/of/the/host\n", 3.0),
        ({"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a\n", 2.0),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a\n", None),
        ({"cpu.max": "nonsense"}, "0::/\n", None),
        ({}, "", None),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], process: str, expected: float | None) -> None:
    root = write(tmp_path / "cgroup", files)
    root.mkdir(exist_ok=True)
    file = write(tmp_path, {"process": process}) / "process"
    assert cpu_quota(root, file) == expected


def test_this_machine() -> None:
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))
    found = memory()
    assert 0 < found.available <= found.total
    for cache in caches():
        assert cache.level >= 1
        assert cache.size > 0


def test_caches(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "index0/level": "1\n",
            "index0/type": "Data\n",
            "index0/size": "48K\n",
            "index0/shared_cpu_list": "0\n",
            "index1/level": "3\n",
            "index1/type": "Unified\n",
            "index1/size": "32M\n",
            "index1/shared_cpu_list": "0-7\n",
            "index2/level": "unreadable\n",
        },
    )
    first, second = caches(tmp_path)
    assert (first.level, first.kind, first.size) == (1, "Data", 48 * 1024)
    assert (second.level, second.size, second.shared_by) == (3, 32 * 1024**2, "0-7")
