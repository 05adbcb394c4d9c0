"""Quotas, memory, and which modules are for this processor."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.errors import DeviceError
from clarion.host import choices, choose, isa, processor_family
from clarion.host.memory import memory
from clarion.host.threads import cpu_quota, default_threads, most_threads
from clarion.runtime import measure

from .files import write


@pytest.mark.parametrize(
    ("files", "process", "expected"),
    [
        ({"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, "0::/a/b\n", 1.5),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "300000 100000"}, "0::/of/the/host\n", 3.0),
        ({"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a\n", 2.0),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "3:cpu:/a\n", None),
        ({"cpu.max": "nonsense"}, "0::/\n", None),
        ({"cpu.max": "100000 0"}, "0::/\n", None),
        ({"cpu.max": "1" * 5000 + " 1"}, "0::/\n", None),
        ({"cpu.max": "100000 100000"}, "no colons\n0::/" + "a/" * 3000, 1.0),
        ({"cpu.max": "100000 100000"}, "0::/" + "a" * 5000, 1.0),
        ({"../cpu.max": "100000 100000"}, "0::/../x\n", None),
        ({}, "", None),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str | bytes], process: str, expected: float | None) -> None:
    root = write(tmp_path / "cgroup", files)
    file = write(tmp_path, {"process": process}) / "process"
    assert cpu_quota(root, file) == expected


@settings(deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=40))
def test_any_quota(process: bytes, quota: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), {"process": process, "groups/cpu.max": quota})
        found = cpu_quota(root / "groups", root / "process")
        assert found is None or found > 0


def test_memory(tmp_path: Path) -> None:
    meminfo = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\n"
    root = write(tmp_path, {"meminfo": meminfo, "v2/memory.max": "512000", "v2/memory.current": "112000"})
    assert memory(root / "meminfo", []).total == 1000 * 1024
    assert memory(root / "meminfo", []).available == 600 * 1024
    limited = memory(root / "meminfo", [root / "v2"])
    assert (limited.total, limited.available) == (512000, 400000)
    # The group's own cache of files can be had back.
    write(tmp_path, {"v2/memory.stat": "anon 5\nactive_file 20000\ninactive_file 30000\nbroken\n"})
    assert memory(root / "meminfo", [root / "v2"]).available == 450000
    # Where the system says nothing, there is still an answer.
    for content in ("", "MemTotal: many kB\n", "MemTotal:\0"):
        write(tmp_path, {"meminfo": content})
        assert 0 < memory(root / "meminfo", []).available <= memory(root / "meminfo", []).total
    assert memory(root / "nothing", []).total > 0


def test_this_machine() -> None:
    assert 1 <= default_threads() <= most_threads() <= len(os.sched_getaffinity(0))
    found = memory()
    assert 0 < found.available <= found.total


def test_modules_of_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {choice.family for choice in choices()} == set(isa.MODULES)
    assert all(choice.family in (processor_family(), "any") for choice in choices() if choice.usable)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor_family() == "AArch64"
    with pytest.raises(DeviceError, match="'avx2' is for x86-64 processors, this one is aarch64"):
        choose("avx2")
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    assert processor_family() == "IBM Z"
    monkeypatch.setattr("platform.machine", lambda: "alpha")
    assert processor_family() == "any"


def test_the_measurement_runs_on_every_module(monkeypatch):
    """As short as it can be: what it gives is no measurement, but it must be a rate."""
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    monkeypatch.setattr(measure, "_PROMPT", 2)
    for choice in choices():
        if choice.installed and not choice.missing_features:
            products = measure._Products(choice.name)
            products._tensors = dict(list(products._tensors.items())[:2])
            assert all(rate > 0 for rate in products.rates(1))
